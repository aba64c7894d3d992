"""A network of its own for a machine of a cluster, whose cable can be pulled. Needs root."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence

__all__ = ["Network", "is_allowed", "open_network"]

_NUMBERS = iter(range(1, 1 << 14))


class Network:
    """`host` is this machine as seen from there; `wrap` a command that is to run there."""

    def __init__(self) -> None:
        number = next(_NUMBERS)
        self.name = f"u{os.getpid():x}n{number:x}"
        subnet, first = f"10.231.{number >> 6}", number % 64 * 4
        self.host, self.guest = f"{subnet}.{first + 1}", f"{subnet}.{first + 2}"

    def open(self) -> None:
        """Make it, with a cable to this machine."""
        _ip("netns", "add", self.name)
        _ip("link", "add", self.name, "type", "veth", "peer", "name", "cable", "netns", self.name)
        _ip("addr", "add", f"{self.host}/30", "dev", self.name)
        _ip("link", "set", self.name, "up")
        _ip("-n", self.name, "addr", "add", f"{self.guest}/30", "dev", "cable")
        _ip("-n", self.name, "link", "set", "cable", "up")
        _ip("-n", self.name, "link", "set", "lo", "up")

    def wrap(self, command: Sequence[str]) -> list[str]:
        """The command, as it is run there."""
        return ["ip", "netns", "exec", self.name, *command]

    def cut(self) -> None:
        """Pull the cable: nothing gets through, and nobody is told."""
        _ip("link", "set", self.name, "down")

    def mend(self) -> None:
        """Plug it in again."""
        _ip("link", "set", self.name, "up")

    def close(self) -> None:
        """Remove it; what still runs there keeps the rest of it."""
        for kind in ("link", "netns"):
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip(kind, "del", self.name)


@contextlib.contextmanager
def open_network() -> Iterator[Network]:
    """A network, for as long as it is needed."""
    network = Network()
    try:
        network.open()
        yield network
    finally:
        network.close()


def is_allowed() -> bool:
    """Whether we may make one."""
    try:
        with open_network():
            return True
    except subprocess.CalledProcessError:
        return False


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
