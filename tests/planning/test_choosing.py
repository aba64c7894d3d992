"""Which tasks run again, each by what became of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pytest

from tests.support.store import put_hand_in, put_start
from umpteen.history.history import History
from umpteen.job.spec import Task
from umpteen.model.states import STATES
from umpteen.planning.choosing import (
    RERUN_CHOICES,
    Choice,
    Chooser,
    Chosen,
    find_other_code,
    list_code,
    takes_behind,
)
from umpteen.store.directory import DirectoryStore

# By index; `running` is in a batch that lives, `lost` in one that nobody runs, and `fresh` in none.
STANDING = [
    "succeeded", "failed", "timed_out", "cancelled", "skipped", "gone", "running", "lost", "fresh",
    "changed",
]  # fmt: skip
OLD, NEW = [["0a", "/there", ""]], [("0b", "/there", "")]
FAILURES = {"failed", "timed_out", "cancelled", "skipped"}
REST = {"unfinished", "gone", "changed", "new"}


@pytest.fixture
def history(store: DirectoryStore) -> History:
    """Tasks of every kind in a store, as many as are in STANDING."""
    lines = [{"command": name} for name in STANDING]
    synced = {"synced": OLD}
    put_hand_in(store, 1, lines, {"1": "0-5,9", "2": "6", "3": "7"}, settings=synced)
    states = ["succeeded", "failed", "timed_out", "cancelled", "skipped", "succeeded"]
    records = [
        {"task": index, "digest": "", "attempt": 1, "state": state}
        for index, state in [*enumerate(states), (9, "succeeded")]
    ]
    put_start(store, "1", records)
    history = History(store)
    history.refresh()
    history.overrule(STANDING.index("gone"), 0)
    return history


def open_chooser(
    history: History,
    rerun: str = "default",
    *,
    living: Collection[str] = ("2",),
    changed: Collection[str] = ("changed",),
    begun: Collection[str] | None = None,
    synced: Sequence[Sequence[Any]] = (),
) -> Chooser:
    indices = None if begun is None else set(map(STANDING.index, begun))
    return Chooser(history, living, rerun, set(map(STANDING.index, changed)), indices, synced)


def choose(
    history: History, rerun: str = "default", only: Chosen | None = None, **more: Any
) -> Choice:
    """Of the tasks in STANDING, and a new one."""
    tasks = [Task(name) for name in [*STANDING, "added"]]
    return open_chooser(history, rerun, **more).choose(range(len(tasks)), tasks, only)


def name_all(choice: Choice) -> set[str]:
    return {[*STANDING, "added"][index] for index in choice.to_run}


@pytest.mark.parametrize(
    ("rerun", "reasons"),
    [
        ("default", {*FAILURES, *REST}),
        ("all", {*FAILURES, *REST, "succeeded"}),
        ("code", {*FAILURES, *REST, "code"}),
        ("failed", FAILURES),
        ("changed", {"changed"}),
        ("behind", set()),
        ("none", {"new"}),
        ("retry", FAILURES),
        ("rest", REST),
        ("left", REST),
    ],
)
def test_tasks_run_for_the_reasons_of_the_choice(
    history: History, rerun: str, reasons: set[str]
) -> None:
    choice = choose(history, rerun, synced=NEW)
    expected = dict.fromkeys(reasons, 1)
    expected.update({"new": 2} if "new" in reasons else {})  # `fresh` and `added`
    assert choice.why == expected
    assert list(choice.to_run) == sorted(choice.to_run)
    places = {"new": {"fresh", "added"}, "unfinished": {"lost"}, "code": {"succeeded"}}
    names = [places.get(reason, {reason}) for reason in reasons]
    assert name_all(choice) == set().union(*names)


@pytest.mark.parametrize(
    ("rerun", "left"), [("default", 0), ("none", 4), ("changed", 4), ("failed", 0), ("rest", 4)]
)
def test_what_is_left_alone_is_counted(history: History, rerun: str, left: int) -> None:
    choice = choose(history, rerun)
    assert (choice.running, choice.done, choice.left_failed) == (1, 1, left)


def test_tasks_that_nobody_asked_for_are_left_out(history: History) -> None:
    asked = {"cancelled", "skipped", "gone", "changed", "added"}
    choice = choose(history, "all", lambda _, task: task.command in asked)
    assert name_all(choice) == asked
    # Of those that are left alone only who failed is told.
    assert (choice.running, choice.done, choice.left_failed) == (0, 0, 2)


def test_new_job_runs_whole(store: DirectoryStore) -> None:
    history = History(store)
    chooser = Chooser(history, (), "default", (), None, ())
    assert chooser.choose(range(2), [Task("a")] * 2, None) == Choice(range(2), {"new": 2})
    assert chooser.choose(range(0), [], None) == Choice(range(0), {})
    choice = chooser.choose(range(2), [Task("a")] * 2, lambda index, _: index == 1)
    assert (list(choice.to_run), choice.why) == ([1], {"new": 1})
    choice = Chooser(history, (), "failed", (), None, ()).choose(range(1), [Task("a")], None)
    assert choice == Choice(choice.to_run, {})
    assert not choice.to_run


# --- what is done already -------------------------------------------------------------------------


def put_done(store: DirectoryStore, count: int, **more: Any) -> History:
    put_hand_in(store, 1, [{"command": "a"}] * count, {"1": f"0-{count - 1}"}, **more)
    end = {"event": "end", "left": 0, "states": {"succeeded": f"0-{count - 1}"}}
    records = [{"task": n, "digest": "", "attempt": 1, "state": "succeeded"} for n in range(count)]
    put_start(store, "1", [*records, end])
    history = History(store)
    history.refresh()
    return history


class Unread(Sequence[Task]):
    """Tasks that nobody may look at."""

    def __getitem__(self, place: Any) -> Any:
        raise AssertionError(place)

    def __len__(self) -> int:
        raise AssertionError


@pytest.mark.parametrize("count", [2, 3])
def test_job_of_which_all_is_done_is_not_looked_at_task_by_task(
    store: DirectoryStore, count: int
) -> None:
    history = put_done(store, 3)
    refuse: Chosen = lambda *_: pytest.fail("was looked at")  # noqa: E731
    for rerun in ("default", "code"):
        chooser = Chooser(history, (), rerun, (), None, ())
        assert chooser.choose(range(count), Unread(), refuse) == Choice([], {}, done=count)


@pytest.mark.parametrize(
    ("count", "more", "why"),
    [
        (3, {"rerun": "all"}, {"succeeded": 3}),
        (3, {"changed": {1}}, {"changed": 1}),
        (3, {"rerun": "code", "synced": NEW}, {"code": 3}),
        (3, {"synced": NEW}, {}),
        (4, {}, {"new": 1}),
    ],
)
def test_job_of_which_all_was_done_runs_what_there_is_a_reason_for(
    store: DirectoryStore, count: int, more: dict[str, Any], why: dict[str, int]
) -> None:
    history = put_done(store, 3, settings={"synced": OLD})
    given = {"rerun": "default", "changed": (), "synced": (), **more}
    chooser = Chooser(history, (), begun=None, **given)
    assert chooser.choose(range(count), [Task("a")] * count, None).why == why


def test_tasks_out_of_order_are_judged_one_by_one(store: DirectoryStore) -> None:
    history = put_done(store, 3)
    history.states[2] = STATES.index("failed")
    chooser = Chooser(history, (), "default", (), None, ())
    choice = chooser.choose([2, 0], [Task("a")] * 2, None)
    assert (list(choice.to_run), choice.done) == ([2], 1)
    choice = chooser.choose(range(3), [Task("a")] * 3, None)
    assert (list(choice.to_run), choice.done) == ([2], 2)


def test_done_tasks_run_again_where_their_own_batch_had_other_code(store: DirectoryStore) -> None:
    put_hand_in(store, 1, [{"command": "a"}] * 2, {"1": "0"}, settings={"synced": NEW})
    put_hand_in(store, 2, [], {"2": "1"}, settings={"synced": OLD})
    history = History(store)
    history.refresh()
    history.states[:] = bytes([STATES.index("succeeded")] * 2)
    choice = Chooser(history, (), "code", (), None, NEW).choose(range(2), [Task("a")] * 2, None)
    assert (list(choice.to_run), choice.why, choice.done) == ([1], {"code": 1}, 1)


# --- what has come to no end ----------------------------------------------------------------------


def test_task_is_left_to_who_runs_it_whatever_changed(history: History) -> None:
    for rerun in ("all", "changed"):
        choice = choose(history, rerun, changed=STANDING)
        assert choice.running == 1
        assert "running" not in name_all(choice)
    assert "running" in name_all(choose(history, living=()))


def test_end_of_a_task_counts_while_others_of_its_batch_run(history: History) -> None:
    choice = choose(history, living=("1", "2"))
    assert choice.running == 1
    assert name_all(choice) == name_all(choose(history))


def test_lost_task_of_the_first_batch_is_unfinished(store: DirectoryStore) -> None:
    put_hand_in(store, 1, [{"command": "a"}], {"1": "0"})
    history = History(store)
    history.refresh()
    choice = Chooser(history, (), "default", (), None, ()).choose(range(1), [Task("a")], None)
    assert choice.why == {"unfinished": 1}


def test_change_counts_before_what_became_of_a_task(history: History) -> None:
    named = [name for name in STANDING if name != "running"]
    assert choose(history, "changed", changed=STANDING).why == {"changed": len(named)}


def test_lost_task_that_has_not_begun_is_as_new(history: History) -> None:
    lost = ["lost", "running"]
    for begun, names in ((lost, set()), ([], {"lost", "running"}), (["lost"], {"running"})):
        choice = choose(history, "none", living=(), begun=begun)
        assert name_all(choice) == {"fresh", "added", *names}
    assert "lost" not in name_all(choose(history, "none", begun=None))


@pytest.mark.parametrize("name", STANDING)
def test_task_is_open_where_it_has_no_end_and_nobody_runs_it(history: History, name: str) -> None:
    chooser = open_chooser(history)
    is_open = name in ("gone", "lost", "fresh", "changed")
    assert chooser.is_open(STANDING.index(name)) is is_open
    assert chooser.is_open(len(STANDING))


# --- other code -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "now", "is_other"),
    [
        (OLD, NEW, True),
        (OLD, OLD, False),
        (OLD, [], False),
        ([], NEW, False),
        (None, NEW, False),
        ([["b", "/y", ""], ["a", "/x", ""]], [["a", "/z", ""], ["b", "", ""]], False),
        ([["a", "/x", ""], ["b", "/y", ""]], [["a", "/x", ""]], True),
    ],
)
def test_code_is_another_where_its_digests_differ(
    store: DirectoryStore, before: Any, now: list[Sequence[str]], *, is_other: bool
) -> None:
    history = put_done(store, 1, settings={} if before is None else {"synced": before})
    assert find_other_code(history, now) == (frozenset({0}) if is_other else frozenset())
    assert list_code(history.batches["1"]) == [each[0] for each in before or ()]


def test_code_of_each_batch_is_its_own(store: DirectoryStore) -> None:
    put_hand_in(store, 1, [{"command": "a"}] * 2, {"1": "0"}, settings={"synced": NEW})
    put_hand_in(store, 2, [], {"2": "1"}, settings={"synced": OLD})
    history = History(store)
    history.refresh()
    assert find_other_code(history, NEW) == {1}


def test_tasks_that_were_done_with_other_code_are_counted(store: DirectoryStore) -> None:
    put_hand_in(store, 1, [{"command": "a"}] * 5, {"1": "0-2"}, settings={"synced": OLD})
    put_hand_in(store, 2, [], {"2": "3-4"}, settings={"synced": NEW})
    history = History(store)
    history.refresh()
    for index in (0, 1, 3, 4):
        history.states[index] = STATES.index("succeeded")
    history.states[2] = STATES.index("failed")

    def count(to_run: Sequence[int], synced: Sequence[Sequence[str]] = NEW) -> int:
        chooser = Chooser(history, (), "default", (), None, synced)
        return chooser.count_other_code(range(6), to_run)

    assert (count([]), count([1]), count([0, 1]), count([], ())) == (2, 1, 0, 0)


def test_choices_say_whether_what_is_behind_runs() -> None:
    taking = {rerun: takes_behind(rerun) for rerun in (*RERUN_CHOICES, "retry", "rest", "left")}
    assert taking == {
        "default": True, "all": True, "failed": False, "changed": False, "behind": True,
        "code": True, "none": False, "retry": True, "rest": True, "left": False,
    }  # fmt: skip
