"""`umpteen`: finds the verb, runs it, and is the only place that catches every error."""

from __future__ import annotations

import sys

from umpteen._version import __version__

__all__ = ["main"]


def main() -> None:
    """The program. Exits with 0, 1, 2, 3 or 130 (see `umpteen.errors`)."""
    if sys.argv[1:] == ["--version"]:  # so quick that prompts may ask for it
        sys.stdout.write(f"umpteen {__version__}\n")
        return
    from umpteen.cli.group import run_program

    sys.exit(run_program(sys.argv[1:]))


if __name__ == "__main__":
    main()
