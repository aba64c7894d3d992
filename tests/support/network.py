"""A network of its own for a machine of a cluster, whose cable can be pulled. Needs root."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterator, Sequence

__all__ = ["Network", "is_allowed", "open_network"]

_MOST = 1 << 14
# Another process of tests begins elsewhere, so that the two seldom want the same addresses.
_NUMBERS = itertools.count(os.getpid() * 61)


class Network:
    """`host` is this machine as seen from there; `wrap` a command that is to run there."""

    host = guest = ""

    def __init__(self) -> None:
        self.name = f"u{os.getpid():x}n{next(_NUMBERS) % _MOST:x}"
        self._plug = f"{self.name}c"

    def open(self) -> None:
        """Make it, with a cable to this machine."""
        _ip("netns", "add", self.name)
        # Between the two stands a bridge: neither end of a cable that is pulled loses its address.
        _ip("link", "add", self.name, "type", "bridge")
        _ip("link", "set", self.name, "up")
        self._take_addresses()
        _ip("link", "add", self._plug, "type", "veth", "peer", "name", "cable", "netns", self.name)
        _ip("link", "set", self._plug, "master", self.name, "up")
        _ip("-n", self.name, "addr", "add", f"{self.guest}/30", "dev", "cable")
        _ip("-n", self.name, "link", "set", "cable", "up")
        _ip("-n", self.name, "link", "set", "lo", "up")

    def _take_addresses(self) -> None:
        """Find two that no other process of tests has: the kernel takes a route only once."""
        for number in itertools.islice(_NUMBERS, 1000):
            subnet, first = f"10.231.{number % _MOST >> 6}", number % 64 * 4
            self.host, self.guest = f"{subnet}.{first + 1}", f"{subnet}.{first + 2}"
            command = ["ip", "route", "add", f"{self.guest}/32", "dev", self.name]
            done = subprocess.run(command, capture_output=True, check=False)
            if b"File exists" not in done.stderr:
                done.check_returncode()
                _ip("addr", "add", f"{self.host}/32", "dev", self.name)
                return
        message = "no addresses are left for a network"
        raise AssertionError(message)

    def wrap(self, command: Sequence[str]) -> list[str]:
        """The command, as it is run there."""
        return ["ip", "netns", "exec", self.name, *command]

    def cut(self) -> None:
        """Pull the cable: nothing gets through, and nobody is told."""
        _ip("link", "set", self._plug, "down")

    def mend(self) -> None:
        """Plug it in again."""
        _ip("link", "set", self._plug, "up")

    def close(self) -> None:
        """Remove it; what still runs there keeps the rest of it."""
        for kind, name in (("link", self._plug), ("link", self.name), ("netns", self.name)):
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip(kind, "del", name)


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
