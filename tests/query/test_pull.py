"""Copies of what tasks left."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from umpteen.errors import InputError
from umpteen.history.history import History
from umpteen.query.files import LeftOut, LeftOutKind, list_task_files
from umpteen.query.pull import Pulled, pull
from umpteen.store.base import Store


def run(history: History, *include: str, force: bool = False) -> Pulled:
    return list(pull(history, "copies", include, force=force))[-1]


def test_pull_copies_all_and_a_second_time_nothing(history: History) -> None:
    first, second = run(history), run(history)
    assert (first.files, first.kept) == (9, 0)
    assert (second.files, second.kept) == (9, 9)
    assert Path("copies/prep/stdout").read_text() == "out of prep\n"
    assert os.stat("copies/train-1/stdout").st_mtime == 13.0


def test_pull_copies_what_patterns_choose(history: History) -> None:
    assert run(history, "*.csv").files == 3
    assert run(history, "train-*/stdout").files == 2
    with pytest.raises(InputError, match="no file fits"):
        run(history, "*.png")


def test_pull_leaves_alone_what_the_user_changed(history: History) -> None:
    run(history)
    mine = Path("copies/prep/stdout")
    mine.write_text("mine")
    (left_out,) = run(history).left_out
    assert (left_out.path, left_out.kind) == ("prep/stdout", LeftOutKind.IN_THE_WAY)
    assert mine.read_text() == "mine"
    assert run(history, force=True).left_out == []
    assert mine.read_text() == "out of prep\n"


def test_pull_replaces_what_has_run_again(store: Store, read: Callable[[], History]) -> None:
    run(read())
    path = Path(store.address, ".umpteen/records/1").glob("*.jsonl")
    (records,) = path
    again = '{"task":0,"digest":"","attempt":2,"state":"succeeded","exit_code":0,"end_s":99}\n'
    lines = records.read_text().splitlines(keepends=True)
    records.write_text("".join([*lines[:-1], again, lines[-1]]))
    Path(store.address, "prep/stdout").write_text("anew\n")
    pulled = run(read())
    assert (pulled.files, pulled.kept) == (9, 6)
    assert Path("copies/prep/stdout").read_text() == "anew\n"


def test_pull_into_the_folder_of_a_job_is_refused(history: History) -> None:
    with pytest.raises(InputError, match="is the folder of a job"):
        list(pull(history, history.store.address))


def test_files_leave_out_links_that_lead_away_and_what_is_no_file(history: History) -> None:
    results = Path(history.store.address, "prep", "results")
    (results / "away").symlink_to("/etc/passwd")
    (results / "near").symlink_to("a.csv")
    os.mkfifo(results / "pipe")
    left_out: list[LeftOut] = []
    found = next(list_task_files(history, left_out))
    assert found.results == ["a.csv", "near"]
    assert [(each.path, each.kind) for each in left_out] == [
        ("prep/results/away", LeftOutKind.LINK),
        ("prep/results/pipe", LeftOutKind.SPECIAL),
    ]
