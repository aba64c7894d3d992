"""The job in Slurm's queue that submits others, on a Slurm of ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.fake_slurm import FakeSlurm
from tests.support.wait import wait_until
from umpteen.errors import BackendError, StoreError
from umpteen.runner.slurm import commands, submitter
from umpteen.runner.slurm.commands import QueuedElement, is_full, parse_elements
from umpteen.runner.slurm.plan import (
    PlannedArray,
    Rest,
    encode_progress,
    encode_rest,
    parse_progress,
    parse_rest,
)
from umpteen.runner.slurm.submitter import Submitter, split_element
from umpteen.store.address import open_store
from umpteen.store.base import Store
from umpteen.store.layout import CANCEL, rest_key, script_key, submitted_key, submitter_key

MARK = "ab12"
REST = Rest(
    mark=MARK,
    most=3,
    round_s=300,
    own={"job-name": "umpteen-ab12-submitter", "array": "0", "dependency": "singleton"},
    arrays=[
        PlannedArray(0, 5, 5, "job-ab12-0", {"job-name": "job-ab12-0"}, [], []),
        PlannedArray(
            1,
            2,
            7,
            "job-ab12-1",
            {"job-name": "job-ab12-1"},
            ["job-ab12-0", "other-cd34-2_7"],
            ["job-ab12-0", "other-cd34-2"],
        ),
    ],
)
WAIT = "#!/bin/sh\nuntil [ -e {folder}/go ]; do sleep 0.05; done\n"


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitter, "_PAUSES_S", (0.1,) * 5)
    monkeypatch.setattr(commands, "CALLS_A_S", 100.0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with all that a submitter reads; scripts wait for the file `go` beside it."""
    store = open_store(str(tmp_path / "store"))
    script = WAIT.format(folder=tmp_path).encode()
    for key in (script_key(MARK, 0), script_key(MARK, 1), submitter_key(MARK)):
        store.replace(key, script)
    store.replace(rest_key(MARK), encode_rest(REST))
    return store


def begin(cluster: FakeSlurm, folder: Path) -> None:
    """A job runs that has the submitter's name, as this process would be."""
    script = folder / "own.sh"
    script.write_text(WAIT.format(folder=folder))
    assert cluster.ask(
        "sbatch", "--job-name=umpteen-ab12-submitter", "--array=0", str(script)
    ).stdout
    wait_until(lambda: cluster.select("SELECT 1 FROM elements WHERE state = 'RUNNING'"))


def list_arrays(cluster: FakeSlurm) -> list[tuple[str, int]]:
    """(name, index) of all that the queue has, but submitters, in its order."""
    question = "SELECT name, number FROM elements JOIN jobs ON jobs.id = job ORDER BY job, number"
    return [row for row in cluster.select(question) if "submitter" not in row[0]]


ALL = [*(("job-ab12-0", number) for number in range(5)), ("job-ab12-1", 0), ("job-ab12-1", 1)]


def test_all_is_submitted_in_parts_behind_what_it_is_after(
    make_fake_slurm: Callable[..., FakeSlurm], store: Store, tmp_path: Path
) -> None:
    cluster = make_fake_slurm(cpus=1)
    begin(cluster, tmp_path)
    Submitter(store, MARK).run()
    assert list_arrays(cluster) == ALL
    assert cluster.count_calls()["sbatch"] == 1 + 3
    after = cluster.select("SELECT after FROM jobs WHERE name = 'job-ab12-1'")
    assert after == [('["2", "3"]',)]
    assert parse_progress(store.read(submitted_key(MARK)) or b"") == {0: 5, 1: 2}


@pytest.mark.parametrize("is_written", [True, False])
def test_second_submitter_submits_nothing_twice(
    make_fake_slurm: Callable[..., FakeSlurm],
    store: Store,
    tmp_path: Path,
    is_written: bool,
) -> None:
    cluster = make_fake_slurm(failing=0.2, lying=0.2)
    begin(cluster, tmp_path)
    Submitter(store, MARK).run()
    if not is_written:  # it was killed before it could
        store.delete(submitted_key(MARK))
    Submitter(store, MARK).run()
    assert sorted(list_arrays(cluster)) == sorted(ALL)


def test_part_for_which_there_is_never_room_is_made_smaller(
    make_fake_slurm: Callable[..., FakeSlurm], store: Store, tmp_path: Path
) -> None:
    cluster = make_fake_slurm(submit_jobs=2, job_age_s=0.5)
    begin(cluster, tmp_path)
    store.replace(script_key(MARK, 0), b"#!/bin/sh\n")
    store.replace(script_key(MARK, 1), b"#!/bin/sh\n")
    Submitter(store, MARK).run()
    assert cluster.select("SELECT count(*) FROM jobs WHERE name <> 'umpteen-ab12-submitter'") == [
        (7,)
    ]


def test_submitter_that_finds_no_room_for_long_leaves_it_to_a_later_one(
    make_fake_slurm: Callable[..., FakeSlurm], store: Store, tmp_path: Path
) -> None:
    cluster = make_fake_slurm(submit_jobs=5)
    begin(cluster, tmp_path)
    Submitter(store, MARK).run()
    assert list_arrays(cluster) == ALL[:3]
    later = cluster.select("SELECT name FROM jobs WHERE begin > 100 + strftime('%s', 'now')")
    assert later == [("umpteen-ab12-submitter",)]


def test_what_is_cancelled_is_not_submitted(
    make_fake_slurm: Callable[..., FakeSlurm], store: Store, tmp_path: Path
) -> None:
    cluster = make_fake_slurm()
    begin(cluster, tmp_path)
    store.replace(CANCEL, b'{"upto":5}')
    Submitter(store, MARK).run()
    assert list_arrays(cluster) == ALL[5:]


def test_queue_that_does_not_know_the_submitter_is_not_believed(
    make_fake_slurm: Callable[..., FakeSlurm], store: Store
) -> None:
    cluster = make_fake_slurm()
    with pytest.raises(BackendError, match="our job is missing"):
        Submitter(store, MARK).run()
    assert list_arrays(cluster) == []


def test_damaged_plan_is_named(store: Store) -> None:
    store.replace(rest_key(MARK), b'{"mark": 1}')
    with pytest.raises(StoreError, match=r"rest\.json is damaged"):
        Submitter(store, MARK)


def test_plan_is_read_back() -> None:
    assert parse_rest(encode_rest(REST)) == REST
    assert parse_progress(encode_progress({3: 9})) == {3: 9}


def test_elements_are_read_and_what_is_cut_short_is_not() -> None:
    out = "12|3|RUNNING|a|b-0|(null)|\n9|N/A|PENDING|other|(null)|\n"
    assert parse_elements(out) == [QueuedElement(12, 3, "RUNNING", "a|b-0")]
    own = "job-0123456789ab-0"
    called_otherwise = [QueuedElement(1, 0, "PENDING", own)]
    assert parse_elements(f"1|0|PENDING|train|why {own}|\n") == called_otherwise
    assert parse_elements(out[:-2]) is None
    assert parse_elements("") == []


@pytest.mark.parametrize(
    ("word", "parts"),
    [("a_1-ab-0", ("a_1-ab-0", "")), ("a_1-ab-0_3", ("a_1-ab-0", "3"))],
)
def test_word_for_elements_is_read(word: str, parts: tuple[str, str]) -> None:
    assert split_element(word) == parts


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed", True),
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit\n", True),
        ("sbatch: error: AssocGrpSubmitJobsLimit\n", True),
        ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying.", True),
        ("sbatch: error: AssocMaxWallDurationPerJobLimit\n", False),
        ("sbatch: error: Socket timed out on send/recv operation", False),
    ],
)
def test_too_many_jobs_are_told_from_other_refusals(said: str, expected: bool) -> None:
    assert is_full(said) == expected
