"""Commands of a backend: answers, refusals, and those that are tried again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from umpteen.errors import BackendError
from umpteen.executors import command as command_module
from umpteen.executors.command import Commands, refuse
from umpteen.system.commands import Answer

# Fails until it was called so many times, which it counts in a file.
FLAKY = """
import sys
path, times, words = sys.argv[1:]
with open(path, "a") as file:
    file.write("x")
if len(open(path).read()) < int(times):
    sys.exit(words)
print("done")
"""


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Those that are tried three times, without a pause."""
    monkeypatch.setattr(command_module, "_PAUSES_S", (0.0, 0.0))
    return Commands(lambda said: "busy" in said, "install it")


def flaky(path: Path, times: int, words: str) -> list[str]:
    return [sys.executable, "-c", FLAKY, str(path), str(times), words]


def test_command_is_answered(commands: Commands) -> None:
    program = "import sys; print(sys.stdin.read()); sys.exit('no')"
    answer = commands.run([sys.executable, "-c", program], given="ä")
    assert answer == Answer(1, "ä\n", "no\n")


def test_busy_backend_is_asked_again(commands: Commands, tmp_path: Path) -> None:
    answer = commands.run(flaky(tmp_path / "calls", 3, "busy"))
    assert answer.out == "done\n"


def test_backend_that_stays_busy_is_a_transient_error(commands: Commands, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="busy") as caught:
        commands.run(flaky(tmp_path / "calls", 9, "busy"))
    assert caught.value.transient
    assert (tmp_path / "calls").read_text() == "xxx"


def test_backend_that_refuses_is_not_asked_again(commands: Commands, tmp_path: Path) -> None:
    assert commands.run(flaky(tmp_path / "calls", 9, "never")).code == 1
    assert (tmp_path / "calls").read_text() == "x"


def test_command_that_did_its_work_is_not_run_again(commands: Commands, tmp_path: Path) -> None:
    commands.run(flaky(tmp_path / "calls", 9, "busy"), is_undone=lambda: False)
    assert (tmp_path / "calls").read_text() == "x"


def test_command_that_takes_too_long_is_a_transient_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command_module, "_LIMIT_S", 0.1)
    commands = Commands(lambda said: "timed out" in said, "")
    with pytest.raises(BackendError, match="sleep timed out"):
        commands.run(["sleep", "60"], is_patient=False)


def test_missing_command_says_what_to_do(commands: Commands) -> None:
    with pytest.raises(BackendError, match="there is no no-such-command here") as caught:
        commands.run(["no-such-command"])
    assert caught.value.hint == "install it"


def test_refusal_is_in_the_commands_own_words() -> None:
    said = "sbatch: error: invalid partition\nsbatch: error: Batch job submission failed\n"
    error = refuse(["sbatch", "a b"], Answer(1, "", said))
    assert str(error) == "sbatch: invalid partition; Batch job submission failed"
    assert (error.returned, error.command) == (1, "sbatch 'a b'")
