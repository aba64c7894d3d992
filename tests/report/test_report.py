"""How a job looks as lines of text."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.query.test_status import make_status
from tests.support.store import put_batch, put_hand_in
from umpteen.history.history import History
from umpteen.model.record import Record
from umpteen.query.failures import Failure, choose_failures, read_failure
from umpteen.query.registry import register
from umpteen.query.unrun import UnrunCounts
from umpteen.report.plan import render_plan
from umpteen.report.run import build_ending, fit_progress, render_start
from umpteen.report.status import (
    render_bar,
    render_counts,
    render_failures,
    render_left,
    render_unrun,
    status_to_dict,
)
from umpteen.report.text import render_ago, render_seconds, render_table, shorten_path
from umpteen.store.address import open_store
from umpteen.store.directory import DirectoryStore
from umpteen.store.layout import batch_key
from umpteen.store.records import build_line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "under 0.01 s"),
        (0.42, "0.42 s"),
        (1.0, "1 s"),
        (9.1, "9.1 s"),
        (12.4, "12 s"),
        (89, "89 s"),
        (90, "1.5 min"),
        (5399, "90 min"),
        (9000, "2.5 h"),
        (36 * 3600, "1.5 d"),
        (40 * 86400, "40 d"),
    ],
)
def test_seconds_are_in_the_unit_a_person_would_choose(seconds: float, text: str) -> None:
    assert render_seconds(seconds) == text


@pytest.mark.parametrize(
    ("left_s", "text"),
    [
        (None, ""),
        ((0.1, 0.5), "1 s left"),
        ((4.2, 6.1), "4–6 s left"),
        ((5.6, 6.1), "6 s left"),
        ((540, 780), "9–13 min left"),
        ((80, 100), "1–2 min left"),
    ],
)
def test_left_is_a_range_in_the_unit_of_its_longer_end(
    left_s: tuple[float, float] | None, text: str
) -> None:
    assert render_left(left_s) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(1, "just now"), (720, "12 min ago"), (90_000, "yesterday"), (10 * 86400, "10 d ago")],
)
def test_ago_is_what_a_person_would_say(seconds: float, text: str) -> None:
    assert render_ago(time.time() - seconds) == text


def test_counts_leave_out_what_there_is_none_of() -> None:
    status = make_status(counts={"succeeded": 1058, "timed_out": 2, "running": 8, "waiting": 31})
    assert render_counts(status) == "1,058 done · 2 timed out · 8 running · 31 waiting"
    assert render_counts(make_status()) == "nothing yet"


@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 60))
def test_bar_has_its_width_and_is_full_only_at_the_end(done: int, waiting: int, width: int) -> None:
    bar = render_bar(make_status(counts={"succeeded": done, "waiting": waiting}), width)
    assert len(bar) == width
    assert set(bar) <= set("━╸ ")
    assert (bar == "━" * width) == (waiting == 0)


def test_start_says_what_runs_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    status = make_status(counts={"waiting": 10_000}, address=f"{tmp_path}/umpteen-results/job")
    expected = "job: 10,000 tasks, 2 at a time on this machine, results in umpteen-results/job"
    assert render_start(status) == expected


def test_plan_says_what_runs_and_why() -> None:
    why = {"new": 20, "failed": 3, "changed": 1, "unfinished": 4}
    assert render_plan(97, 2, why) == (
        "97 done before, 2 being run already, 3 failed before and run again, 1 changed, "
        "4 not finished before, 20 new"
    )


def test_end_of_a_success_has_no_more_to_say() -> None:
    status = make_status(counts={"succeeded": 3}, state="succeeded")
    assert build_ending(status, "job", 9.1, 10.4).render() == [
        "job: 3 succeeded in 9.1 s (5.2 s of work a slot)",
        "  results   /store",
    ]


def test_end_with_failures_says_how_to_go_on() -> None:
    status = make_status(counts={"succeeded": 1, "failed": 2, "waiting": 3}, state="unfinished")
    first, _, last = build_ending(status, "job", 1.0, 0.0).render()
    assert first.startswith("job: 1 succeeded, 2 failed, 3 not run in 1 s")
    assert last.startswith("  again     ")
    assert "the 2 that failed and the 3 that did not run" in last


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"failed": 1}, "runs the 1 that failed"),
        ({"timed_out": 2}, "runs the 2 that timed out"),
        ({"cancelled": 1}, "runs the 1 that was cancelled"),
        ({"cancelled": 4}, "runs the 4 that were cancelled"),
        ({"failed": 1, "skipped": 2}, "runs the 3 that did not succeed"),
    ],
)
def test_end_says_what_runs_again(counts: dict[str, int], said: str) -> None:
    ending = build_ending(make_status(counts=counts, state="failed"), "./job", 1.0, 0.0)
    last = ending.render()[-1]
    assert last == f"  again     umpteen retry ./job     {said}"


@pytest.mark.parametrize(
    ("path", "shown"),
    [("{here}/a/b", "a/b"), ("{here}", "{here}"), ("{here}x/a", "{here}x/a"), ("/a", "/a")],
)
def test_path_is_shortened_only_below_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str, shown: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shorten_path(path.format(here=tmp_path)) == shown.format(here=tmp_path)


# --- failures ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stderr", "last_line"),
    [
        (b"", ""),
        (b"first\nValueError: seed 17 diverged\n", "ValueError: seed 17 diverged"),
        (b"why\n\n  \n\t\n", "why"),
        (b"\x1b[31mred\x1b[0m\x07", "red"),
        (b"a\xffb", "a\N{REPLACEMENT CHARACTER}b"),
        (b" 50 %\r100 %\rfailed\r\n", "failed"),
        (b"x" * 100_000 + b"\nend", "end"),
    ],
)
def test_failure_has_the_last_line_of_stderr(tmp_path: Path, stderr: bytes, last_line: str) -> None:
    store = DirectoryStore(str(tmp_path / "store"))
    put_hand_in(store, 1, [{"command": "a"}], {"1": "0"})
    put_batch(store, "1", "0", ["name"])
    (tmp_path / "store/name").mkdir()
    (tmp_path / "store/name/stderr").write_bytes(stderr)
    history = History(store)
    history.refresh()
    failure = read_failure(history, "1", Record(0, "", 1, "failed", exit_code=1))
    assert (failure.name, failure.last_line) == ("name", last_line)


@pytest.mark.parametrize("is_ours", [True, False])
def test_failure_of_a_job_elsewhere_shows_no_file_here_that_others_may_have_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_ours: bool
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    store = open_store(f"memory://{uuid.uuid4().hex}/job", {})
    put_hand_in(store, 1, [{"command": "a"}], {"1": "0"})
    run = {"cmd": "a", "remote_output_path": str(tmp_path / "own")}
    content = {"runs": [run], "umpteen": {"names": ["name"], "indices": "0"}}
    store.create(batch_key("1"), build_line(content))
    (tmp_path / "own").mkdir()
    (tmp_path / "own/stderr").write_text("why")
    if is_ours:
        register("job", store.address, str(tmp_path))
    history = History(store)
    history.refresh()
    failure = read_failure(history, "1", Record(0, "", 1, "failed", exit_code=1))
    assert failure.last_line == ("why" if is_ours else "")


def make_failure(**more: Any) -> Failure:
    return Failure(**{
        "index": 1, "name": "x=1", "state": "failed", "reason": "exit 1", "more": "exit 1",
        "last_line": "why", "has_stderr": True, **more,
    })  # fmt: skip


def make_timed_out() -> Failure:
    return make_failure(
        name="x=22", state="timed_out", reason="timed out after 2 s", more="after 2 s"
    )


def test_failures_are_one_line_each_with_what_to_type() -> None:
    lines = render_failures("job", [make_failure(), make_timed_out()])
    assert [line.split() for line in lines] == [
        "failed x=1 exit 1 why umpteen logs job x=1 --stderr".split(),
        "timed out x=22 after 2 s why umpteen logs job x=22 --stderr".split(),
    ]


def test_failures_command_is_quoted_for_a_shell() -> None:
    (line,) = render_failures("my job", [make_failure(name="it's", has_stderr=False)])
    assert line.endswith("""umpteen logs 'my job' 'it'"'"'s'""")


@pytest.mark.parametrize("width", [80, 100, 200])
def test_failures_fit_the_terminal_and_keep_the_command(width: int) -> None:
    long = make_failure(last_line="word " * 60, name="n" * 10)
    (line,) = render_failures("job", [long], width)
    assert len(line) <= width
    assert line.endswith("umpteen logs job nnnnnnnnnn --stderr")


def test_failures_with_long_names_each_have_their_command_below() -> None:
    names = ["a" * 50, "b" * 50]
    lines = render_failures("job", [make_failure(name=name) for name in names], 80)
    assert lines[1::2] == [f"   umpteen logs job {name} --stderr" for name in names]
    assert all(len(line) <= 80 for line in lines)


def make_folds(tmp_path: Path, records: list[Record]) -> UnrunCounts:
    store = DirectoryStore(str(tmp_path / "store"))
    last = len(records) - 1
    put_hand_in(store, 1, [{"command": "a"}] * len(records), {"1": f"0-{last}"})
    put_batch(store, "1", f"0-{last}", [f"t-{n}" for n in range(len(records))])
    history = History(store)
    history.refresh()
    folds = UnrunCounts()
    for record in records:
        folds.add(history, "1", record)
    return folds


def test_folds_have_a_line_for_each_reason(tmp_path: Path) -> None:
    reasons = ["after prep, which failed"] * 60 + ["after t-1, which skipped"] * 2
    records = [Record(n, "", 1, "skipped", reason=reason) for n, reason in enumerate(reasons)]
    records += [
        Record(n, "", 1, "cancelled", reason="not started after 3 failed") for n in range(62, 70)
    ]
    records += [Record(70, "", 1, "cancelled", signal=15)]
    assert render_unrun(make_folds(tmp_path, records).list_groups()) == [
        " 60 skipped after prep, which failed",
        " 8 cancelled: not started after 3 failed",
        " 2 skipped after tasks that were skipped (t-60, t-61)",
        " 1 cancelled (t-70)",
    ]


def test_folds_name_the_few_of_a_reason_beside_many_of_another(tmp_path: Path) -> None:
    reasons = ["after a, which failed"] * 9 + ["after b, which failed"] * 2
    records = [Record(n, "", 1, "skipped", reason=reason) for n, reason in enumerate(reasons)]
    assert render_unrun(make_folds(tmp_path, records).list_groups()) == [
        " 9 skipped after a, which failed",
        " 2 skipped after b, which failed (t-9, t-10)",
    ]


def test_folds_differing_in_whom_they_were_after_are_one_line(tmp_path: Path) -> None:
    ends = ["failed"] * 40 + ["was cancelled"] * 3 + ["timed out"] * 2
    records = [
        Record(n, "", 1, "skipped", reason=f"after prep-{n}, which {end}")
        for n, end in enumerate(ends)
    ]
    assert render_unrun(make_folds(tmp_path, records).list_groups()) == [
        " 40 skipped after tasks that failed",
        " 3 skipped after tasks that were cancelled (t-40, t-41, t-42)",
        " 1 skipped after prep-43, which timed out (t-43)",
        " 1 skipped after prep-44, which timed out (t-44)",
    ]


def test_folds_for_many_reasons_are_few_lines(tmp_path: Path) -> None:
    records = [Record(n, "", 1, "cancelled", reason=f"reason {n}") for n in range(40)]
    lines = render_unrun(make_folds(tmp_path, records).list_groups(), 30)
    assert len(lines) == 6
    assert lines[-1] == " 35 more skipped or cancelled…"


@pytest.mark.parametrize(("most", "chosen"), [(0, []), (1, [3]), (2, [0, 3]), (3, [0, 2, 3])])
def test_failures_are_chosen_before_what_was_skipped(most: int, chosen: list[int]) -> None:
    states = ["failed", "skipped", "skipped", "timed_out"]
    entries = [("1", Record(n, "", 1, state)) for n, state in enumerate(states)]
    assert [record.task for _, record in choose_failures(entries, most)] == chosen


def test_table_columns_are_as_wide_as_their_widest() -> None:
    lines = render_table(["name", "n"], [["a", "1"], ["longer", "22"]], right="lr")
    assert lines == ["name     n", "a        1", "longer  22"]


def test_status_as_json_has_what_the_table_shows() -> None:
    shown = status_to_dict(make_status(counts={"succeeded": 1, "waiting": 1}, left_s=(1.0, 2.0)))
    assert (shown["name"], shown["total"], shown["left_s"]) == ("job", 2, [1.0, 2.0])
    assert shown["counts"]["succeeded"] == 1


def test_status_as_json_of_what_has_ended_has_nothing_left() -> None:
    assert status_to_dict(make_status(counts={"succeeded": 1}, left_s=(1.0, 2.0)))["left_s"] is None


@pytest.mark.parametrize("width", [20, 40, 60, 79, 80, 100, 200])
def test_progress_fits_the_terminal(width: int) -> None:
    counts = {"succeeded": 24, "failed": 3, "running": 2, "waiting": 571}
    status = make_status(counts=counts, rate=4.8, left_s=(100.0, 150.0))
    parts = fit_progress(status, width)
    assert 1 + sum(map(len, parts)) <= width
    assert ("2 min left" in parts.left) == (width >= 79)
    assert ("4.8/s" in parts.counts) == (width >= 100)
    assert len(parts.bar) == (30 if width >= 200 else len(parts.bar))
