"""The installed command in a folder, home and environment of its own."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from umpteen.model.variables import SSH

__all__ = ["Umpteen"]

SOURCE = Path(__file__).parents[2] / "src"
_WITHOUT_SCRIPT = f"""import sys
sys.path.insert(0, {str(SOURCE)!r})
from umpteen.cli.main import main
sys.exit(main())"""

_KILLED = """
import os, sys
left = int(sys.argv.pop(1))
def killing(call):
    def wrapped(*args, **named):
        global left
        left -= 1
        if not left:
            os._exit(9)
        return call(*args, **named)
    return wrapped
for name in sys.argv.pop(1).split():
    setattr(os, name, killing(getattr(os, name)))
from umpteen.cli.main import main
main()
"""


@dataclass(frozen=True)
class Umpteen:
    """`umpteen("run", "tasks.yaml")` runs the command to its end; `start` leaves it running.

    folder: the working directory. home: everything that is the user's own.
    """

    folder: Path
    home: Path

    def __call__(
        self,
        *arguments: str | Path,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        stdin: str = "",
        timeout_s: float = 180,
    ) -> subprocess.CompletedProcess[str]:
        """Run it, whatever its exit code; `env` is added to the environment."""
        return subprocess.run(
            [*self.command, *map(str, arguments)],
            cwd=cwd or self.folder,
            env=self.environment | (env or {}),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def start(
        self,
        *arguments: str | Path,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """A running one in a session of its own, its stdout and stderr as pipes."""
        return subprocess.Popen(
            [*self.command, *map(str, arguments)],
            cwd=cwd or self.folder,
            env=self.environment | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run_killed(self, at: int, calls: str, *arguments: str) -> None:
        """Run it, and kill it at its `at`-th call of one of these functions of `os`."""
        command = [sys.executable, "-c", _KILLED, str(at), calls, *arguments]
        subprocess.run(command, cwd=self.folder, env=self.environment, timeout=60, check=False)

    def at_terminal(self, *arguments: str | Path, columns: int) -> list[str]:
        """The lines that it prints where its stdout is a terminal of so many columns."""
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            [*self.command, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment | {"COLUMNS": str(columns)},
            stdin=subprocess.DEVNULL,
            stdout=theirs,
        ):
            os.close(theirs)
            printed = b""
            with contextlib.suppress(OSError):  # EIO: the other end is closed
                while part := os.read(ours, 65536):
                    printed += part
        os.close(ours)
        return printed.decode().splitlines()

    def list_loaded(self, *arguments: str | Path) -> set[str]:
        """The modules that Python loads to run it."""
        told = self(*arguments, env={"PYTHONPROFILEIMPORTTIME": "1"}).stderr.splitlines()
        return {line.rpartition("|")[2].strip() for line in told if line.startswith("import time:")}

    def write(self, name: str, text: str) -> Path:
        """Put a file into the working directory."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def store(self, name: str = "job") -> Path:
        """Where a job of that name has its results, where nothing else is said."""
        return self.folder / "umpteen-results" / name

    @property
    def command(self) -> list[str]:
        """The console script beside this Python, or the same call without it."""
        script = Path(sys.executable).with_name("umpteen")
        return [str(script)] if script.exists() else [sys.executable, "-c", _WITHOUT_SCRIPT]

    @property
    def leases(self) -> Path:
        """Where the runners that it starts keep their leases."""
        return self.home / "leases" / f"umpteen-{os.getuid()}"

    @property
    def environment(self) -> dict[str, str]:
        """Ours, with a private home and nothing that changes how the command behaves."""
        inherited = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("UMPTEEN_", "SATURN_", "XDG_", "PYTHON")) or key == SSH
        }
        return inherited | {
            "HOME": str(self.home),
            "XDG_DATA_HOME": str(self.home / "data"),
            "UMPTEEN_LEASES": str(self.leases.parent),
            "COLUMNS": "120",
        }
