"""The command that starts a runner, or another program of this package."""

from __future__ import annotations

import os
import sys

from umpteen.errors import EXIT_INTERRUPTED, RUNNER_CRASHED

__all__ = ["build_python_command", "build_runner_command"]


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
