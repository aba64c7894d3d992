"""One look at a job, whose store answers late, refuses, or does not answer at all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

import msgspec
import pytest

from tests.submission.conftest import KeepingExecutor, make_job
from umpteen.errors import StoreError
from umpteen.executors.own_runs import ExitStatus, OwnRuns
from umpteen.history.history import History
from umpteen.query.status import JobStatus, build_status
from umpteen.store.directory import DirectoryStore
from umpteen.submission.plan import Scope
from umpteen.submission.submit import find_submitted, submit_new
from umpteen.verbs import look as look_module
from umpteen.verbs.handle import JobHandle
from umpteen.verbs.look import look

Found = tuple[JobStatus, set[str]]


class SlowStore(DirectoryStore):
    """A folder that answers when it may, or refuses."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.may_answer = threading.Event()
        self.errors: list[StoreError] = []

    def names(self, *given: Any, **more: Any) -> list[str]:
        """The first thing that a look asks for."""
        if not self.may_answer.wait(60):
            raise AssertionError
        if self.errors:
            raise self.errors.pop(0)
        return super().names(*given, **more)


class Runner(OwnRuns):
    """A runner of this process, as this test would have it."""

    is_attached = True

    def __init__(self) -> None:
        self.ended: ExitStatus | None = None
        self.waits: list[float] = []
        self.meanwhile: Callable[[], object] = int

    def exit_status(self) -> ExitStatus | None:
        return self.ended

    def wait(self, timeout_s: float) -> None:
        self.waits.append(timeout_s)
        self.meanwhile()


class Clock:
    """Seconds that pass when this test says so."""

    now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What a look goes by, which looks after its call at once."""
    clock = Clock()
    monkeypatch.setattr(look_module, "time", clock)
    monkeypatch.setattr(look_module, "_GLANCE_S", 0.001)
    monkeypatch.setenv("UMPTEEN_STORE_PATIENCE_S", "60")
    return clock


@pytest.fixture
def runner() -> Runner:
    """Lives."""
    return Runner()


@pytest.fixture
def handle(address: str, runner: Runner, clock: Clock) -> Iterator[JobHandle]:
    """A job of two tasks that this process submitted, in a store that does not answer."""
    del clock
    submitted = submit_new(make_job(address, "1", "2"), Scope())
    KeepingExecutor.living.add("handle 2")
    store = SlowStore(address)
    history = History(store)
    submitted.executor.own_runs = runner
    store.may_answer.set()
    history.refresh()
    store.may_answer.clear()
    yield JobHandle(submitted._replace(history=history))
    store.may_answer.set()  # to whoever still asks


@pytest.fixture
def found(handle: JobHandle) -> JobHandle:
    """The same job, which others submitted."""
    submitted = find_submitted(handle.history, handle.settings)
    submitted.executor.own_runs = handle.executor.own_runs
    return JobHandle(submitted)


def get_store(handle: JobHandle) -> SlowStore:
    store = handle.history.store
    assert isinstance(store, SlowStore)
    return store


def refuse(handle: JobHandle, *, transient: bool, times: int = 1) -> None:
    """Have the store refuse so many looks."""
    store = get_store(handle)
    store.errors = [StoreError(f"no {n}", transient=transient) for n in range(times)]
    store.may_answer.set()


def begin(handle: JobHandle, trouble: str = "") -> Generator[JobStatus, None, Found | None]:
    before = build_status(handle.history, set())
    return look(handle, msgspec.structs.replace(before, trouble=trouble))


def finish(looking: Generator[JobStatus, None, Found | None]) -> tuple[list[str], Found | None]:
    """What was wrong meanwhile, and what was found."""
    troubles = []
    while True:
        try:
            troubles.append(next(looking).trouble)
        except StopIteration as ended:
            return troubles, ended.value


# --- where it answers -----------------------------------------------------------------------------


def test_look_says_how_the_job_stands_and_what_runs(handle: JobHandle) -> None:
    get_store(handle).may_answer.set()
    troubles, found = finish(begin(handle))
    assert set(troubles) <= {""}
    assert found
    status, living = found
    assert (status.total, status.counts["waiting"], status.state) == (2, 2, "running")
    assert living == {"2"}


def test_look_reads_what_is_new(handle: JobHandle, address: str) -> None:
    submit_new(make_job(address, "1", "2", "3"), Scope())
    get_store(handle).may_answer.set()
    _, found = finish(begin(handle))
    assert found
    assert found[0].total == 3


def test_look_shows_what_was_known_while_it_lasts(handle: JobHandle) -> None:
    looking = begin(handle, "the disk is full")
    for _ in range(3):
        status = next(looking)
        assert (status.total, status.trouble) == (2, "the disk is full")
        assert handle.is_looking
    get_store(handle).may_answer.set()
    finish(looking)
    assert not handle.is_looking


# --- where it is silent ---------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "shown"), [(4.9, ""), (5.0, "5"), (14.9, "10"), (60.0, "60")])
def test_silence_is_shown_after_five_seconds_by_fives(
    found: JobHandle, clock: Clock, seconds: float, shown: str
) -> None:
    looking = begin(found)
    next(looking)
    clock.now_s += seconds
    trouble = f"the results store has not answered for {shown} s" if shown else ""
    assert next(looking).trouble == trouble


def test_silence_that_lasts_too_long_is_raised(found: JobHandle, clock: Clock) -> None:
    looking = begin(found)
    next(looking)
    clock.now_s += 60.0
    next(looking)
    clock.now_s += 0.1
    with pytest.raises(StoreError, match=r"^the results store does not answer$") as raised:
        next(looking)
    assert raised.value.hint == "run the same command again"


def test_runner_of_our_own_decides_itself_how_long_is_too_long(
    handle: JobHandle, runner: Runner, clock: Clock
) -> None:
    looking = begin(handle)
    next(looking)
    clock.now_s += 600.0
    assert next(looking).trouble == "the results store has not answered for 600 s"
    runner.ended = ExitStatus(3)
    assert finish(looking) == ([], None)


def test_runner_that_ended_well_leaves_it_to_us(
    handle: JobHandle, runner: Runner, clock: Clock
) -> None:
    runner.ended = ExitStatus(0)
    looking = begin(handle)
    next(looking)
    clock.now_s += 61.0
    with pytest.raises(StoreError, match="does not answer"):
        next(looking)


def test_look_ends_where_the_user_stops_it(found: JobHandle) -> None:
    looking = begin(found)
    next(looking)
    found.interrupt()
    assert finish(looking) == ([], None)


def test_look_goes_on_while_what_the_user_stopped_comes_to_its_end(
    handle: JobHandle, runner: Runner
) -> None:
    handle.interrupt()
    looking = begin(handle)
    assert next(looking).trouble == ""
    runner.ended = ExitStatus(0)
    assert finish(looking) == ([], None)


# --- where it refuses -----------------------------------------------------------------------------


def test_refusal_that_may_pass_is_shown_and_the_store_asked_again(
    found: JobHandle, runner: Runner
) -> None:
    refuse(found, transient=True, times=2)
    troubles, answer = finish(begin(found))
    shown = [trouble for trouble in dict.fromkeys(troubles) if trouble]
    assert shown == [f"the results store cannot be read: no {n}" for n in range(2)]
    assert runner.waits == [found.poll_s] * 2
    assert answer
    assert answer[0].trouble == ""


def test_refusal_that_stays_is_raised_at_once(found: JobHandle, runner: Runner) -> None:
    refuse(found, transient=False)
    with pytest.raises(StoreError, match=r"^no 0$"):
        finish(begin(found))
    assert runner.waits == []


def test_refusal_that_stays_is_left_to_a_runner_of_our_own(
    handle: JobHandle, runner: Runner
) -> None:
    refuse(handle, transient=False)
    troubles, answer = finish(begin(handle))
    assert troubles[-1] == "the results store cannot be read: no 0"
    assert answer
    assert runner.waits == [handle.poll_s]


def test_refusal_is_raised_where_the_store_is_silent_for_too_long_after_it(
    found: JobHandle, runner: Runner, clock: Clock
) -> None:
    refuse(found, transient=True)
    runner.meanwhile = get_store(found).may_answer.clear
    looking = begin(found)
    said = next(status.trouble for status in looking if status.trouble)
    assert said == "the results store cannot be read: no 0"
    clock.now_s += 30.0
    assert next(looking).trouble == said
    clock.now_s += 31.0
    with pytest.raises(StoreError, match=r"^no 0$"):
        next(looking)
