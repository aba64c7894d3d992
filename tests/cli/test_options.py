"""Words and flags that several verbs read alike."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from umpteen.cli.options import (
    TaskCommand,
    read_duration,
    read_memory,
    read_size,
    read_where,
    refuse_loose,
)
from umpteen.errors import InputError, SettingsError
from umpteen.query.job_names import find_job

CONTEXT = click.Context(click.Command("verb"))


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No job of this user, and no file but those of the test."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("read", "word", "value"),
    [
        (read_duration, "90s", 90.0),
        (read_duration, "2h", 7200.0),
        (read_memory, "4G", 4 << 30),
        (read_size, "100K", 100 << 10),
        (read_duration, None, None),
        (read_memory, None, None),
        (read_size, None, None),
        (read_where, None, None),
    ],
)
def test_flag_is_read_as_a_value(read: object, word: str | None, value: float | None) -> None:
    assert callable(read)
    assert read(CONTEXT, click.Option(["--flag"]), word) == value


@pytest.mark.parametrize(
    ("read", "word"),
    [
        (read_duration, "soon"),
        (read_memory, "much"),
        (read_size, "much"),
        (read_where, "state="),
        (read_where, "no such thing"),
    ],
)
def test_flag_that_cannot_be_read_is_named(read: object, word: str) -> None:
    assert callable(read)
    with pytest.raises(SettingsError, match=r"^--flag: "):
        read(CONTEXT, click.Option(["--flag"]), word)


def test_expression_taken_apart_by_the_shell_is_put_together_again() -> None:
    where = read_where(CONTEXT, click.Option(["--where"]), "state=failed")
    with pytest.raises(SettingsError) as refused:
        refuse_loose("--where", where, ["job", "and", "lr<1"])
    assert refused.value.hint == "write --where 'state=failed and lr<1'"


def test_words_beside_an_expression_are_tasks() -> None:
    refuse_loose("--where", read_where(CONTEXT, click.Option(["--where"]), "state=failed"), ["a"])
    refuse_loose("--where", None, ["and"])


@pytest.mark.parametrize(
    ("words", "tasks"),
    [
        (["job", "-1"], ("-1",)),
        (["job", "a", "-0.5", "--json"], ("a", "-0.5")),
        (["job", "--", "-1"], ("-1",)),
    ],
)
def test_task_may_be_called_like_a_negative_number(words: list[str], tasks: tuple[str]) -> None:
    verb = TaskCommand(
        "verb",
        params=[
            click.Argument(["name"]),
            click.Argument(["tasks"], nargs=-1),
            click.Option(["--json"], is_flag=True),
        ],
    )
    with verb.make_context("verb", list(words)) as context:
        assert context.params["tasks"] == tasks


def test_task_like_an_unknown_flag_is_refused() -> None:
    verb = TaskCommand("verb", params=[click.Argument(["tasks"], nargs=-1)])
    with pytest.raises(click.NoSuchOption):
        verb.make_context("verb", ["job", "-x"])


def test_job_is_the_word_itself_where_no_file_is_called_that() -> None:
    assert find_job("some-job") == "some-job"


def test_job_of_a_file_that_was_never_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "job.txt").write_text("true\n")
    with pytest.raises(InputError, match="has not been run from here: there is no job at"):
        find_job("job.txt")
