"""`umpteen`: where the program begins and ends. Verbs are found, and errors shown, by `group`."""

from __future__ import annotations

import sys

from umpteen._version import __version__

__all__ = ["main"]


def main() -> None:
    """The program. Exits with 0, 1, 2, 3, 130 or 141 (see `umpteen.errors`)."""
    if sys.argv[1:] == ["--version"] and _print_version():
        return
    try:
        from umpteen.system.streams import fill_streams

        fill_streams()
        from umpteen.cli.group import run_program

        code = run_program(sys.argv[1:])
    except KeyboardInterrupt:  # while it is loaded
        code = 130
    _end_quietly()
    sys.exit(code)


def _print_version() -> bool:
    """So quick that prompts may ask for it; False where it could not be printed."""
    try:
        sys.stdout.write(f"umpteen {__version__}\n")
        sys.stdout.flush()
    except (AttributeError, OSError):
        return False
    return True


def _end_quietly() -> None:
    """Have a Ctrl-C that comes while Python puts its things away end it without a word."""
    import signal

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
