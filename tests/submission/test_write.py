"""A plan on its way into the store and to the executor: what is put, in which order."""

from __future__ import annotations

import json
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.submission.conftest import KeepingExecutor, make_job
from tests.support.store import put_hand_in
from tests.support.wait import wait_until
from umpteen.errors import StoreError
from umpteen.executors.base import BatchRequest, OnProgress, SubmitRequest, ignore_progress
from umpteen.history.history import History
from umpteen.job.spec import Job, Task, TaskOptions
from umpteen.model.states import STATES
from umpteen.planning.batch_files import Past
from umpteen.planning.batching import BatchSizes
from umpteen.planning.known import read_known
from umpteen.planning.plan import Plan, build_plan, build_settings
from umpteen.store.base import Content
from umpteen.store.directory import DirectoryStore
from umpteen.store.job_files import is_closed
from umpteen.store.layout import (
    HANDED,
    LOCK,
    TASKS,
    batch_key,
    handed_key,
    handles_key,
    options_key,
    tasks_key,
)
from umpteen.store.submission_lock import submission_lock
from umpteen.submission.job_folder import create_job
from umpteen.submission.write import submit_plan


class MeddledStore(DirectoryStore):
    """A folder in which something else happens just before a file is put for the first time."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.before: dict[str, Callable[[], object]] = {}

    def create(self, key: str, content: Content) -> bool:
        self.before.pop(key, int)()
        return super().create(key, content)

    def have_others_put(self, key: str) -> None:
        """Somebody else puts that file just before us."""
        self.before[key] = lambda: DirectoryStore.create(self, key, b"another's")


class LookingExecutor(KeepingExecutor):
    """Notes which files are in the store when it is asked."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.found: list[str] = []

    def submit(
        self, request: SubmitRequest, on_progress: OnProgress = ignore_progress
    ) -> dict[str, str]:
        store = DirectoryStore(request.address)
        self.found = sorted(name for folder in (HANDED, TASKS) for name in store.names(folder))
        on_progress("was asked")
        return super().submit(request, on_progress)


@pytest.fixture
def store(address: str) -> MeddledStore:
    """Of the job."""
    return MeddledStore(address)


def make(address: str, *tasks: Task | str, **settings: Any) -> Job:
    """A job of these tasks, a text standing for one that prints it."""
    job = make_job(address, "0")
    return msgspec.structs.replace(
        job,
        tasks=[Task(f"echo {task}") if isinstance(task, str) else task for task in tasks],
        settings=msgspec.structs.replace(job.settings, **settings),
    )


def prepare(job: Job, store: MeddledStore, rerun: str = "default") -> tuple[Plan, History]:
    """What is to run of a job, by what is in its store."""
    create_job(store, job)
    history = History(store)
    history.refresh()
    return build_plan(job, history, read_known(job, history, rerun), set(), rerun), history


def write(
    plan: Plan,
    history: History,
    past: Mapping[int, Past] | None = None,
    sizes: BatchSizes | None = None,
) -> list[str]:
    with submission_lock(history.store) as lock:
        return submit_plan(plan, history, KeepingExecutor({}), past or {}, lock, sizes)


def read_json(store: DirectoryStore, key: str) -> Any:
    return json.loads(store.read(key) or b"null")


def succeed(history: History, *indices: int) -> None:
    """Have tasks count as done."""
    for index in indices:
        history.states[index] = STATES.index("succeeded")


# --- what is put ----------------------------------------------------------------------------------


def test_plan_of_a_new_job_is_put_whole(store: MeddledStore) -> None:
    job = msgspec.structs.replace(make(store.address, "1", "2", "3"), source_digest="d1")
    plan, history = prepare(job, store)
    sizes = BatchSizes(range(3), [2, 1], workers=2)
    began_s = time.time()
    assert write(plan, history, sizes=sizes) == ["1", "2"]
    (request,) = KeepingExecutor.asked
    handed = read_json(store, handed_key(1))
    assert began_s - 0.001 <= handed.pop("time") <= time.time() + 0.001
    assert handed == {
        "hand_in": 1, "executor": "keeping", "mark": request.mark, "tasks": 3, "workers": 2,
        "batches": [{"batch": "1", "indices": "0-1"}, {"batch": "2", "indices": "2"}],
        "source": "d1", "is_plain": True, "place": history.place, "settings": build_settings(job),
    }  # fmt: skip
    assert len(bytes.fromhex(request.mark)) == 6
    assert read_json(store, handles_key(1)) == {"1": "handle 1", "2": "handle 2"}
    tasks = (store.read(tasks_key(1)) or b"").splitlines()
    assert [json.loads(line)["command"] for line in tasks] == ["echo 1", "echo 2", "echo 3"]
    first, second = (read_json(store, batch_key(batch)) for batch in "12")
    assert [run["cmd"] for run in (*first["runs"], *second["runs"])] == [
        "echo 1",
        "echo 2",
        "echo 3",
    ]
    assert first["remote_output_path"] == store.address
    assert store.read(options_key(1)) is None


def test_executor_is_asked_once_all_else_is_there(store: MeddledStore) -> None:
    plan, history = prepare(make(store.address, "1"), store)
    executor, said = LookingExecutor({}), list[str]()
    with submission_lock(store) as lock:
        submit_plan(plan, history, executor, {}, lock, on_progress=said.append)
    assert executor.found == ["1.json", "1.jsonl"]
    assert said == ["was asked"]


def test_marks_of_two_submissions_differ(store: MeddledStore) -> None:
    for commands in ("1", "12"):
        write(*prepare(make(store.address, *commands), store))
    first, second = (request.mark for request in KeepingExecutor.asked)
    assert first != second


def test_later_submission_says_what_it_changes(store: MeddledStore) -> None:
    lines = [{"command": "x", "name": name} for name in "abcdef"]
    create_job(store, make(store.address, "1"))
    put_hand_in(store, 1, lines, {"1": "0-5"})
    gone = [{"command": "", "index": index, "dropped": True} for index in (4, 5)]
    put_hand_in(store, 2, gone, {}, dropped="4-5")
    changed, back = [Task("y", "b"), Task("y", "a")], [Task("x", "f"), Task("x", "e")]
    plan, history = prepare(make(store.address, *changed, *back), store)
    plan.left_behind = {2: 0}
    write(plan, history)
    handed = read_json(store, handed_key(3))
    assert (handed["changed"], handed["dropped"], handed["restored"]) == ("0-1", "2-3", "4-5")
    assert (handed["tasks"], handed["leaves_behind"]) == (0, True)
    assert "workers" not in handed
    history.refresh()
    assert history.dropped == {2, 3}


def test_submission_says_whether_tasks_are_after_others(store: MeddledStore) -> None:
    after = TaskOptions(after=[("prep", "succeeded")])
    job = make(store.address, Task("x", "prep"), Task("y", "end", options=after))
    write(*prepare(job, store))
    assert read_json(store, handed_key(1))["graph"] is True


@pytest.mark.parametrize("field", ["added", "changes", "updates", "dropped"])
def test_tasks_are_put_where_any_is_new_or_another(store: MeddledStore, field: str) -> None:
    lines = [{"command": "echo 1"}, {"command": "echo 2"}]
    put_hand_in(store, 1, lines, {})
    commands = {"added": "123", "changes": "13", "updates": "12", "dropped": "1"}[field]
    job = make(store.address, *commands)
    if field == "updates":
        tagged = [msgspec.structs.replace(task, tags=["new"]) for task in job.tasks]
        job = msgspec.structs.replace(job, tasks=tagged)
    plan, history = prepare(job, store, "failed")
    assert getattr(plan, field)
    write(plan, history)
    assert store.read(tasks_key(2)) is not None


def test_nothing_is_given_to_the_executor_where_no_batch_is_made(store: MeddledStore) -> None:
    put_hand_in(store, 1, [{"command": "echo 1"}, {"command": "echo 2"}], {})
    plan, history = prepare(make(store.address, "1"), store, "failed")
    assert write(plan, history) == []
    assert read_json(store, handed_key(2))["dropped"] == "1"
    assert (KeepingExecutor.asked, store.read(handles_key(2))) == ([], None)


# --- batches --------------------------------------------------------------------------------------


def test_batches_are_numbered_after_all_that_were_made(store: MeddledStore) -> None:
    put_hand_in(store, 1, [{"command": "echo 1"}], {"1": "0"})
    store.create(batch_key("1"), b"")
    store.create(batch_key("7"), b"")  # of a submission that was killed
    plan, history = prepare(make(store.address, "1", "2"), store)
    succeed(history, 0)
    assert write(plan, history) == ["8"]
    batches = [{"batch": "8", "indices": "0-1"}]
    assert read_json(store, handed_key(2))["batches"] == batches


def test_batches_that_must_not_start_again_are_closed(store: MeddledStore) -> None:
    job = make(store.address, "1")
    put_hand_in(store, 1, [{"command": "echo 1"}], {"1": "0"})
    store.create(batch_key("1"), b"")
    plan, history = prepare(job, store)
    assert plan.closed == ["1"]
    assert write(plan, history) == ["2"]
    assert is_closed(store, "1")


def test_lost_batch_is_given_to_the_executor_as_it_is(store: MeddledStore) -> None:
    terms = [
        TaskOptions(gpus=1, memory=5, needs=("b",)), TaskOptions(cpus=4, needs=("a", "b")),
        TaskOptions(memory=9), None, None,
    ]  # fmt: skip
    tasks = [Task(f"echo {n}", options=each) for n, each in enumerate(terms)]
    job = make(store.address, *tasks)
    lines = [json.loads(msgspec.json.encode(task)) for task in tasks]
    handed = {"executor": job.settings.executor, "settings": build_settings(job)}
    put_hand_in(store, 1, lines, {"4": "0-1,3", "5": "2", "6": "4"}, **handed)
    for batch in "456":
        store.create(batch_key(batch), b"as it was")
    plan, history = prepare(job, store)
    assert write(plan, history) == ["4", "5", "6"]
    again = read_json(store, handed_key(2))
    indices = {batch["batch"]: batch["indices"] for batch in again["batches"]}
    assert indices == {"4": "0-1,3", "5": "2", "6": "4"}
    assert (store.read(batch_key("4")), store.read(tasks_key(2))) == (b"as it was", None)
    (request,) = KeepingExecutor.asked
    assert request.orders == [
        BatchRequest("4", [], gpus=1, cpus=4, memory=5, capabilities=("a", "b")),
        BatchRequest("5", [], gpus=0, cpus=0, memory=9),
        BatchRequest("6", []),
    ]


def test_new_batches_have_what_their_tasks_need_and_have_behind_them(store: MeddledStore) -> None:
    options = TaskOptions(gpus=1, cpus=2, memory=3, needs=("a",))
    job = make(store.address, Task("x", "a", options=options), Task("x", "b"))
    plan, history = prepare(job, store)
    write(plan, history, {1: Past(4, "token")}, BatchSizes(range(2), [1, 1]))
    (request,) = KeepingExecutor.asked
    assert request.orders == [
        BatchRequest("1", [], 1, 2, 3, {}, ("a",)),
        BatchRequest("2", []),
    ]
    assert read_json(store, batch_key("2"))["umpteen"]["attempts"] == {"0": [4, "token", [], 0.0]}


# --- what the executor is given ---------------------------------------------------------------


def test_batches_wait_for_those_that_the_executor_can_know(store: MeddledStore) -> None:
    lines = [{"command": "x", "name": name} for name in ("told", "untold")]
    put_hand_in(store, 1, lines, {"1": "0", "2": "1"})
    for batch in "12":
        store.create(batch_key(batch), b"")
    store.create(handles_key(1), b'{"1": "the handle"}')
    first = TaskOptions(after=[("told", "succeeded"), ("untold", "succeeded")])
    second = TaskOptions(after=[("next", "succeeded"), ("untold", "succeeded")])
    given = [Task("x", "told"), Task("x", "untold")]
    job = make(
        store.address,
        *given,
        Task("y", "next", options=first),
        Task("y", "last", options=second),
        slots=3,
    )
    history = History(store)
    history.refresh()
    known = read_known(job, history)
    plan = build_plan(job, history, known, {"1", "2"})
    write(plan, history, sizes=BatchSizes([2, 3], [1, 1]))
    (request,) = KeepingExecutor.asked
    assert request.store == history.identity
    assert request.orders == [BatchRequest("3", ["1"]), BatchRequest("4", ["3"])]
    assert (request.earlier, request.slots) == ({"1": "the handle"}, 3)


@pytest.mark.parametrize(
    ("scheme", "given", "expected"),
    [
        ("", {}, {}),
        ("", {"key": "given"}, {"key": "given"}),
        ("s3://", {}, {"key": "here"}),
        ("s3://", {"key": "given"}, {"key": "given"}),
    ],
)
def test_runner_is_told_how_a_store_elsewhere_is_opened(
    store: MeddledStore,
    monkeypatch: pytest.MonkeyPatch,
    scheme: str,
    given: dict[str, str],
    expected: dict[str, str],
) -> None:
    monkeypatch.setenv("UMPTEEN_RESULTS_OPTIONS", '{"key": "here"}')
    plan, history = prepare(make(store.address, "1", results_options=given), store)
    settings = msgspec.structs.replace(plan.job.settings, address=scheme + "/job")
    plan.job = msgspec.structs.replace(plan.job, settings=settings)
    write(plan, history)
    (request,) = KeepingExecutor.asked
    found = {name: json.loads(value) for name, value in request.environment.items()}
    assert found == ({"UMPTEEN_RESULTS_OPTIONS": expected} if expected else {})


def test_options_of_the_executor_are_kept_for_the_next_submission(store: MeddledStore) -> None:
    options = {"where": "there", "password": "secret"}
    plan, history = prepare(make(store.address, "1", executor_options=options), store)
    write(plan, history)
    assert read_json(store, options_key(1)) == options
    assert "left_out" not in read_json(store, handed_key(1))


def test_secret_options_are_not_put_where_others_may_read_them(
    store: MeddledStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = {"where": "there", "password": "secret"}
    plan, history = prepare(make(store.address, "1", executor_options=options), store)
    monkeypatch.chdir(tmp_path)  # where the folder of that name is made
    monkeypatch.setattr(store, "address", "s3://bucket/job")
    write(plan, history)
    assert read_json(store, options_key(1)) == {"where": "there"}
    assert read_json(store, handed_key(1))["left_out"] == ["password"]


# --- where somebody else submits, or did ------------------------------------------------------


def list_own(store: MeddledStore) -> list[str]:
    """What is there of submissions and their tasks."""
    return sorted(name for folder in (HANDED, TASKS) for name in store.names(folder))


def expect_refusal(store: MeddledStore, key: str, plan: Plan, history: History) -> None:
    with pytest.raises(StoreError) as raised:
        write(plan, history)
    message = f"{store.path(key)} was written by somebody else at the same time"
    assert raised.value.message == message
    assert (raised.value.path, raised.value.hint) == (store.path(key), "run the same command again")
    assert KeepingExecutor.asked == []


def test_submission_that_somebody_else_has_made_stays_as_it_is(store: MeddledStore) -> None:
    put_hand_in(store, 1, [{"command": "echo 1"}], {"1": "0"})
    plan, history = prepare(make(store.address, "1"), store)
    store.create(handed_key(2), b"another's")
    expect_refusal(store, handed_key(2), plan, history)
    assert not is_closed(store, "1")
    assert list_own(store) == ["1.json", "1.jsonl", "2.json"]


def test_submission_that_comes_second_takes_back_what_it_put(store: MeddledStore) -> None:
    plan, history = prepare(make(store.address, "1", executor_options={"a": 1}), store)
    store.create(tasks_key(1), b"another's")
    store.have_others_put(handed_key(1))
    expect_refusal(store, handed_key(1), plan, history)
    assert store.read(tasks_key(1)) == b"another's"
    assert list_own(store) == ["1.json", "1.jsonl", "1.options.json"]


def test_files_of_a_submission_that_was_killed_are_passed_over(store: MeddledStore) -> None:
    plan, history = prepare(make(store.address, "1", executor_options={"a": 1}), store)
    for key in (tasks_key(1), options_key(1)):
        store.create(key, b"another's")
    write(plan, history)
    (request,) = KeepingExecutor.asked
    assert read_json(store, handed_key(1))["segment"] == request.mark
    for name in (tasks_key, options_key):
        content = store.read(name(1, request.mark))
        assert content == store.read(name(1)) != b"another's"


def test_batch_that_somebody_else_puts_ends_the_submission(store: MeddledStore) -> None:
    plan, history = prepare(make(store.address, "1"), store)
    store.have_others_put(batch_key("1"))
    expect_refusal(store, batch_key("1"), plan, history)
    assert store.read(batch_key("1")) == b"another's"
    assert store.read(handed_key(1)) is None


def test_submission_that_fails_keeps_the_lock_until_nobody_writes(store: MeddledStore) -> None:
    plan, history = prepare(make(store.address, "1"), store)
    here, has_failed, was_locked = threading.get_ident(), threading.Event(), list[bool]()

    def is_joined() -> bool:
        frames = traceback.walk_stack(sys._current_frames()[here])
        return {"join", "_tasks_put_beside"} <= {frame.f_code.co_name for frame, _ in frames}

    def write_late() -> None:
        has_failed.wait(60)
        wait_until(lambda: is_joined() or store.read(LOCK) is None)
        was_locked.append(store.read(LOCK) is not None)

    def fail() -> None:
        has_failed.set()
        raise StoreError("the disk is full")

    store.before = {tasks_key(1): write_late, batch_key("1"): fail}
    with pytest.raises(StoreError, match="the disk is full"):
        write(plan, history)
    assert was_locked == [True]
    assert store.read(tasks_key(1)) is not None


def test_tasks_that_cannot_be_put_are_not_submitted(store: MeddledStore) -> None:
    plan, history = prepare(make(store.address, "1"), store)

    def fail() -> None:
        raise StoreError("the disk is full")

    store.before[tasks_key(1)] = fail
    with pytest.raises(StoreError, match="the disk is full"):
        write(plan, history)
    assert store.read(handed_key(1)) is None


def test_lock_that_was_taken_over_at_first_lets_nothing_be_written(store: MeddledStore) -> None:
    put_hand_in(store, 1, [{"command": "echo 1"}], {"1": "0"})
    plan, history = prepare(make(store.address, "1"), store)
    with submission_lock(store) as lock:
        store.replace(LOCK, b'{"token": "another"}')
        with pytest.raises(StoreError, match="was taken over by somebody else"):
            submit_plan(plan, history, KeepingExecutor({}), {}, lock)
    assert not is_closed(store, "1")
    assert list_own(store) == ["1.json", "1.jsonl"]


def test_lock_that_was_taken_over_meanwhile_lets_nothing_be_submitted(store: MeddledStore) -> None:
    plan, history = prepare(make(store.address, "1", executor_options={"a": 1}), store)
    store.before[batch_key("1")] = lambda: store.replace(LOCK, b'{"token": "another"}')
    with pytest.raises(StoreError, match="was taken over by somebody else"):
        write(plan, history)
    assert (KeepingExecutor.asked, list_own(store)) == ([], ["1.jsonl"])


def test_store_is_read_back_as_it_was_put(store: MeddledStore, tmp_path: Path) -> None:
    job = make(store.address, "1", "2", Task("x", "named", cwd=str(tmp_path)))
    write(*prepare(job, store))
    plan, history = prepare(job, store)
    assert [task.command for task in history.read_tasks()] == ["echo 1", "echo 2", "x"]
    assert (plan.again, plan.added, plan.changes) == (["1"], [], [])
