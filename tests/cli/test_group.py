"""What a wrong word of the command line is answered with, in this process: no verb gets to run."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from umpteen.cli import group
from umpteen.cli.group import VERBS, VerbGroup, program, run_program


@pytest.fixture(autouse=True)
def quiet_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """They stay pytest's: `run_program` puts its own guards around the process's streams."""
    for name in ("never_mind_stderr", "guard_stdout"):
        monkeypatch.setattr(group, name, lambda: None)


def refuse(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said on stderr of arguments that are wrong use."""
    assert run_program(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_command_with_help_and_an_example(verb: str) -> None:
    command = program.get_command(click.Context(program), verb)
    assert command is not None
    assert command.help
    assert f"umpteen {verb}" in (command.epilog or "")


def test_verb_that_is_none_is_not_loaded() -> None:
    assert VerbGroup().get_command(click.Context(program), "os") is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rnu"], "there is no verb 'rnu'\n\nhint: did you mean 'run'?"),
        (["delete"], "there is no verb 'delete'\n\nhint: umpteen rm removes a job"),
        (["run", "--wait"], "there is no flag --wait\n\nhint: umpteen run watches to the end"),
        (["run", "--solts", "3"], "there is no flag --solts\n\nhint: did you mean"),
        (["schedule", "--tmie=1"], "there is no flag --tmie\n\nhint: did you mean '--time'"),
        (["schedule", "--lr=1", "app"], "there is no flag --lr\n\nhint: flags of the program"),
        (["schedule", "--time"], "--time needs a value"),
        (["schedule", "--time=soon", "--", "ls"], "'soon' of 'time' is no time that Slurm knows"),
        (["schedule", "--job-name=a/b", "--", "ls"], "'a/b' cannot be a job's name"),
        (["schedule", " "], "nothing to schedule"),
        (["run", "--slots", "x"], "--slots: 'x' is no whole number of at least 1"),
        (["run", "--timeout", "soon"], "--timeout: "),
        (["completion"], "Missing argument "),
    ],
)
def test_wrong_word_is_answered_with_what_to_type(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert refuse(capsys, *arguments).startswith(f"error: {said}")


def test_missing_argument_is_answered_with_the_verbs_first_example(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "hint: for example umpteen logs " in refuse(capsys, "logs")


def test_flag_called_as_a_placeholder_is_shown_as_a_value(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = refuse(capsys, "run", "prog {lr}", "--lr", "0.1 0.2")
    assert said.endswith("hint: values have no dashes: 'lr=0.1 0.2'\n")


def test_flag_of_an_unquoted_command_is_shown_with_the_quotes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "umpteen run --slots 2 'ls --none'" in refuse(
        capsys, "run", "--slots", "2", "ls", "--none"
    )


def test_error_with_json_is_an_object_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["rnu", "--json"]) == 2
    printed = capsys.readouterr()
    assert (json.loads(printed.out)["message"], printed.err) == ("there is no verb 'rnu'", "")


def test_error_with_debug_has_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Traceback" in refuse(capsys, "--debug", "rnu")


def test_error_that_nobody_foresaw_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def burst(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by\x1b[0m zero")

    monkeypatch.setattr(program, "main", burst)
    assert run_program(["ls"]) != 0
    said = capsys.readouterr().err
    assert said.startswith("error: unexpected: ZeroDivisionError: by")
    assert "\x1b" not in said


@pytest.mark.parametrize("raised", [KeyboardInterrupt, click.Abort])
def test_interrupt_ends_with_130(
    monkeypatch: pytest.MonkeyPatch, raised: type[BaseException]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(program, "main", interrupt)
    assert run_program(["ls"]) == 130


@pytest.mark.parametrize(
    ("arguments", "is_ours"),
    [
        (["--debug", "schedule", "ls"], True),
        (["schedule", "--name=b", "nothing-here", "--debug"], False),
        (["schedule", "--", "--debug"], False),
        (["run", "nothing-here.yaml", "--slots=x", "--debug"], True),
    ],
)
def test_debug_among_the_words_of_a_program_is_the_programs(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    is_ours: bool,
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    run_program(arguments)
    assert ("Traceback" in capsys.readouterr().err) == is_ours
