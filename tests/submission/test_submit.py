"""What a submission leaves in the store, and what it asks of the executor."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.submission.conftest import KeepingExecutor, make_job
from tests.support.store import put_start
from umpteen.errors import InputError
from umpteen.executors.base import Lack, TaskNeeds
from umpteen.history.history import History
from umpteen.job.spec import Job, TaskOptions
from umpteen.store.directory import DirectoryStore
from umpteen.store.layout import handed_key, handles_key, tasks_key
from umpteen.store.submission_lock import submission_lock
from umpteen.submission.plan import Scope
from umpteen.submission.read_back import read_back_job, read_history
from umpteen.submission.submit import Submitted, find_submitted, submit_again, submit_new


def read_json(submitted: Submitted, key: str) -> Any:
    return json.loads(submitted.history.store.read(key) or b"null")


def go_on(submitted: Submitted, scope: Scope) -> Submitted:
    """Submit what is left, as who watches does."""
    history = submitted.history
    with submission_lock(history.store) as lock:
        history.refresh()
        job = read_back_job(history, submitted.settings)
        return submit_again(job, history, lock, scope)


def test_new_job_is_in_the_store_before_the_executor_has_it(address: str) -> None:
    submitted = submit_new(make_job(address, "1", "2"), Scope())
    (request,) = KeepingExecutor.asked
    assert request.batches == submitted.batches == ["1", "2"]
    handed = read_json(submitted, handed_key(1))
    assert (handed["executor"], handed["mark"]) == ("keeping", request.mark)
    assert [batch["indices"] for batch in handed["batches"]] == ["0", "1"]
    assert read_json(submitted, handles_key(1)) == {"1": "handle 1", "2": "handle 2"}
    tasks = (submitted.history.store.read(tasks_key(1)) or b"").splitlines()
    assert [json.loads(line)["command"] for line in tasks] == ["echo 1", "echo 2"]
    assert (submitted.summary.total, submitted.summary.why) == (2, {"new": 2})


def test_what_an_executor_has_is_not_submitted_again(address: str) -> None:
    first = submit_new(make_job(address, "1", "2"), Scope())
    KeepingExecutor.living.update(("handle 1", "handle 2"))
    again = submit_new(make_job(address, "1", "2", "3"), Scope())
    assert (again.batches, again.summary.running) == (["3"], 2)
    assert first.rest == Scope("rest")


def test_lost_batch_is_submitted_by_its_number_again(address: str) -> None:
    first = submit_new(make_job(address, "1", "2"), Scope())
    again = go_on(first, first.rest)
    assert again.batches == ["1", "2"]
    assert [request.batches for request in KeepingExecutor.asked] == [["1", "2"]] * 2
    assert read_json(again, tasks_key(2)) is None  # nothing is said twice


def test_what_is_left_has_the_folders_that_were_synced(address: str, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    job = make_job(address, "1", file_syncs=[(str(tmp_path / "code"), "/there")])
    first = submit_new(job, Scope())
    ((_, destination, _),) = first.settings.synced
    assert destination == "/there"
    again = go_on(first, first.rest)
    assert again.batches == ["1"]  # as its settings are the same
    assert again.settings.synced == first.settings.synced


def test_nothing_to_do_writes_nothing(address: str) -> None:
    first = submit_new(make_job(address, "1"), Scope())
    store = first.history.store
    record = {"task": 0, "digest": "", "attempt": 1, "state": "succeeded"}
    put_start(store, "1", [record, {"event": "end", "left": 0, "states": {}}])
    again = submit_new(make_job(address, "1"), Scope())
    assert (again.batches, again.summary.done) == ([], 1)
    assert store.read(handed_key(2)) is None


def test_found_job_is_gone_on_with_as_it_was_left(address: str) -> None:
    submit_new(make_job(address, "1", "2"), Scope())
    history = History(DirectoryStore(address))
    history.refresh()
    found = find_submitted(history, make_job(address, "1").settings)
    assert isinstance(found.executor, KeepingExecutor)
    assert (found.batches, found.rest, found.summary.total) == ([], Scope("rest"), 2)


def test_store_of_another_job_is_refused(address: str) -> None:
    submit_new(make_job(address, "1"), Scope())
    other = msgspec.structs.replace(make_job(address, "1"), name="other")
    with pytest.raises(InputError, match="holds the job 'job'"):
        read_history(other)


# --- capabilities -----------------------------------------------------------------------------


def make_needing(address: str, *needs: Sequence[str]) -> Job:
    """A job with a task for each of these, that prints its position."""
    job = make_job(address, *map(str, range(len(needs))))
    tasks = [
        msgspec.structs.replace(task, options=TaskOptions(needs=tuple(names)) if names else None)
        for task, names in zip(job.tasks, needs, strict=True)
    ]
    return msgspec.structs.replace(job, tasks=tasks)


@pytest.fixture
def knowing(monkeypatch: pytest.MonkeyPatch) -> list[TaskNeeds]:
    """The executor knows what its machines have, which is `a`; what it was asked about."""
    asked: list[TaskNeeds] = []

    def lacks(_: KeepingExecutor, tasks: Sequence[TaskNeeds], __: int) -> Lack | None:
        asked.extend(tasks)
        for number, needs in enumerate(tasks):
            for name in needs.capabilities:
                if name != "a":
                    return Lack(number, 0, name, "no host has it", "add one that has")
        return None

    abilities = KeepingExecutor.abilities._replace(capabilities=True)
    monkeypatch.setattr(KeepingExecutor, "abilities", abilities)
    monkeypatch.setattr(KeepingExecutor, "lacks", lacks)
    return asked


def test_executor_that_knows_capabilities_has_them_by_batch(
    address: str, knowing: list[TaskNeeds]
) -> None:
    submitted = submit_new(make_needing(address, "a", "", "a"), Scope())
    (request,) = KeepingExecutor.asked
    handed = read_json(submitted, handed_key(1))["batches"]
    found = zip((batch["indices"] for batch in handed), request.orders, strict=True)
    assert sorted((indices, order.capabilities) for indices, order in found) == [
        ("0", ("a",)), ("1", ()), ("2", ("a",))
    ]  # fmt: skip
    assert {needs.capabilities for needs in knowing} == {("a",)}


@pytest.mark.usefixtures("knowing")
def test_batches_of_a_size_have_tasks_that_need_the_same(address: str) -> None:
    job = make_needing(address, "a", "", "a", "")
    settings = msgspec.structs.replace(job.settings, batch_size=9)
    submit_new(msgspec.structs.replace(job, settings=settings), Scope())
    (request,) = KeepingExecutor.asked
    assert [order.capabilities for order in request.orders] == [("a",), ()]


@pytest.mark.usefixtures("knowing")
@pytest.mark.parametrize(
    ("needs", "shared"), [(["ab", "ba", "b"], ("b",)), (["a", "b"], ()), (["a", ""], ())]
)
def test_workers_are_counted_that_have_what_all_tasks_need(
    address: str, monkeypatch: pytest.MonkeyPatch, needs: list[str], shared: tuple[str, ...]
) -> None:
    asked: list[TaskNeeds] = []

    def count(_: KeepingExecutor, __: int, needs: TaskNeeds) -> int:
        asked.append(needs)
        return 1

    monkeypatch.setattr(KeepingExecutor, "lacks", lambda *_: None)
    monkeypatch.setattr(KeepingExecutor, "count_workers", count)
    submit_new(make_needing(address, *needs), Scope())
    assert [each.capabilities for each in asked] == [shared]


@pytest.mark.usefixtures("knowing")
def test_lost_batch_has_its_capabilities_again(address: str) -> None:
    first = submit_new(make_needing(address, "a"), Scope())
    again = go_on(first, first.rest)  # by what the store has of its tasks
    assert again.batches == ["1"]
    assert [request.orders[0].capabilities for request in KeepingExecutor.asked] == [("a",)] * 2


@pytest.mark.usefixtures("knowing")
def test_capability_that_no_machine_has_is_refused_before_anything_is_written(
    address: str,
) -> None:
    with pytest.raises(InputError, match="needs 'b'; no host has it"):
        submit_new(make_needing(address, "a", "b"), Scope())
    assert (KeepingExecutor.asked, Path(address).exists()) == ([], False)


def test_capability_is_refused_of_tasks_that_run_alone(address: str) -> None:
    job = make_needing(address, "a", "")
    with pytest.raises(InputError, match="the executor 'keeping' does not know what machines have"):
        submit_new(job, Scope())
    first = submit_new(job, Scope(only=lambda index, _: index == 1))
    assert first.batches == ["1"]
    with pytest.raises(InputError, match="needs 'a'; the executor 'keeping' does not know"):
        submit_new(job, Scope())
    assert DirectoryStore(address).read(handed_key(2)) is None


def test_lost_batch_is_refused_where_it_would_go_to_an_executor_that_does_not_know(
    address: str, knowing: list[TaskNeeds], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = submit_new(make_needing(address, "a"), Scope())
    abilities = KeepingExecutor.abilities._replace(capabilities=False)
    monkeypatch.setattr(KeepingExecutor, "abilities", abilities)
    with pytest.raises(InputError, match="needs 'a'; the executor 'keeping' does not know"):
        go_on(first, first.rest)
    assert len(KeepingExecutor.asked) == 1
    assert knowing
