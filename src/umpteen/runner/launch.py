"""Starts a runner, or another program of this package."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import BinaryIO, NamedTuple

from umpteen.errors import EXIT_INTERRUPTED, RUNNER_CRASHED
from umpteen.model.ranges import format_ranges
from umpteen.model.variables import RUNNER
from umpteen.runner.lease import Lease
from umpteen.store.identity import Identity
from umpteen.system.background import detach

__all__ = [
    "Leased",
    "build_leased_command",
    "build_python_command",
    "build_runner_command",
    "start_leased",
]


class Leased(NamedTuple):
    """A process that has a lease, in a session of its own; complaints: its stderr."""

    process: subprocess.Popen[bytes]
    complaints: BinaryIO


def start_leased(
    lease: Lease,
    command: Sequence[str],
    environment: Mapping[str, str],
    stdin: int = subprocess.DEVNULL,
) -> Leased:
    """Start a process that holds a lease from its beginning; raises OSError, and the lease is gone.

    environment: what it finds beside ours.
    """
    complaints = lease.open_complaints()
    token = os.path.basename(lease.folder)
    try:
        process = detach(
            command,
            stdin=stdin,
            output=subprocess.DEVNULL,
            errors=complaints,
            pass_fds=[lease.lock],
            env={**os.environ, RUNNER: token, **environment},
        )
    except OSError:
        complaints.close()
        lease.remove()
        raise
    os.close(lease.lock)
    return Leased(process, complaints)


def build_leased_command(
    lease: Lease, store: Identity, batches: Sequence[str], slots: int, *more: str
) -> list[str]:
    """The command line of a runner that is to adopt a lease. more: further options."""
    return [
        *build_runner_command(), store.address, format_ranges(map(int, batches)),
        f"--token={os.path.basename(lease.folder)}", f"--lease-fd={lease.lock}",
        f"--slots={slots}", f"--store={store.id}", *more,
    ]  # fmt: skip


def build_runner_command() -> list[str]:
    """The command that starts a runner with this Python and this copy of the package.

    Without `site` it starts in half the time; without PYTHONPATH nothing is passed on to
    commands that they would not have had otherwise.
    """
    return build_python_command("umpteen.runner.main", "-S", "-E")


def build_python_command(module: str, *flags: str) -> list[str]:
    """The command that calls `main` of a module of this copy of the package with this Python.

    The standard library comes first: before the folder that we are in, which may have a
    `random.py`, and before what is installed beside us.
    """
    place = os.path.abspath(f"{__file__}/../../..")
    # By hand as well, as Python 3.9 does not know -P, without which 3.13 imports before we do.
    safe = ["-P"] if sys.version_info >= (3, 11) else []
    program = (
        "import sys\n"
        "sys.path[:] = [*filter(None, sys.path)]\n"
        f"{place!r} in sys.path or sys.path.append({place!r})\n"
        "try:\n"
        f"    from {module} import main\n"
        "    sys.exit(main())\n"
        "except KeyboardInterrupt:\n"
        f"    sys.exit({EXIT_INTERRUPTED})\n"
        "except Exception:\n"
        "    sys.excepthook(*sys.exc_info())\n"
        f"    sys.exit({RUNNER_CRASHED})\n"
    )
    return [sys.executable, *flags, *safe, "-c", program]
