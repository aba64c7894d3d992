"""What it means that ssh ended, by what it said. Standard library alone."""

from __future__ import annotations

import re

__all__ = ["HostError", "NonsenseError", "explain_failure"]

_MOST_SHOWN = 300  # characters of what a host says

# What ssh says, what it means, what helps, and whether it may pass.
_SAYINGS = (
    (r"REMOTE HOST IDENTIFICATION HAS CHANGED", "its host key has changed",
     "if that is as it should be, ssh-keygen -R {host}; else somebody may listen", False),
    (r"Host key verification failed|No \w+ host key is known", "its host key is not known here",
     "accept it once: ssh {host}", False),
    (r"Permission denied|Too many authentication failures|Authentication failed",
     "it refused the login", "ssh {host} must work: check user, keys and ~/.ssh/config", False),
    (r"Could not resolve hostname", "no such host is known",
     "check its name: ssh {host}", True),
    (r"Bad configuration option|terminating, \d+ bad|Bad owner or permissions|no argument after",
     "ssh does not take its configuration", "check ~/.ssh/config: ssh {host}", False),
    (r"Connection refused", "it refused the connection", "check the network, and ssh {host}", True),
    (r"timed out|Connection (reset|closed)|closed by|No route to host|unreachable|Broken pipe|kex_",
     "it does not answer", "check the network, and ssh {host}", True),
    (r"python[\w.]*: (command )?not found|python[\w.]*: No such file", "it has no python3",
     "have python3, 3.9 or newer, on the PATH of a login shell there", False),
    (r"future feature annotations|cannot import name 'TypedDict'", "its python3 is too old",
     "have python3, 3.9 or newer, on the PATH of a login shell there", False),
)  # fmt: skip


class HostError(Exception):
    """A host cannot be reached, or the connection to it was lost."""

    def __init__(self, reason: str, hint: str | None = None, *, is_transient: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.hint, self.is_transient = reason, hint, is_transient


class NonsenseError(HostError):
    """What a host answers cannot be: it is broken, or means harm, and asking again is no use."""

    def __init__(self, host: str, why: str = "") -> None:
        shown = _clean(f"{host} answers what cannot be" + (f": {why}" if why else ""))
        super().__init__(shown, f"ssh {host} and look what its login shell and its python3 are")


def _clean(said: str) -> str:
    """Of what a host says, so much as fits on a terminal, and does nothing to it."""
    return "".join(c if c.isprintable() else " " for c in said[:_MOST_SHOWN])


def explain_failure(host: str, code: int, said: str) -> HostError:
    """What it means that ssh ended so. said: on its stderr."""
    for pattern, reason, hint, is_transient in _SAYINGS:
        if re.search(pattern, said):
            return HostError(
                f"cannot reach {host}: {reason}", hint.format(host=host), is_transient=is_transient
            )
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    is_killed = code < 0 and not lines  # by somebody here, such as the kernel for want of memory
    ended = f"was killed by signal {-code}" if is_killed else f"ended with {code}"
    last = _clean(lines[-1]) if lines else f"ssh {ended}"
    return HostError(
        f"cannot reach {host}: {last}", f"ssh {host} must work", is_transient=is_killed
    )
