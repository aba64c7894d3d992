"""What runs beside the tasks that were chosen: what these need, and what is behind."""

from __future__ import annotations

import pytest

from tests.planning.conftest import (
    CHAIN,
    STEPS,
    after,
    build_plan,
    make_job,
    name_behind,
    names_of,
    only,
    own_part,
    put_again,
    put_named,
    read,
)
from tests.support.store import put_hand_in
from umpteen.job.spec import Task, TaskOptions
from umpteen.model.dependencies import link
from umpteen.planning.additions import list_loose
from umpteen.planning.matching import Change, MatchedTasks
from umpteen.store.directory import DirectoryStore


def test_plan_of_a_new_job_whose_order_will_do_is_no_copy_of_it(store: DirectoryStore) -> None:
    plan = build_plan(make_job(*STEPS), read(store), set())
    assert (plan.to_run, plan.why, plan.done) == (range(4), {"new": 4}, 0)


def test_plan_where_nothing_has_succeeded_keeps_the_order(store: DirectoryStore) -> None:
    put_named(store, Task("x", "busy"), batch="1")
    job = make_job(
        after("last", "first"), Task("x", "first"), Task("x", "busy"), Task("x", "other")
    )
    plan = build_plan(job, read(store), {"1"})
    assert (names_of(plan), plan.running, plan.done) == (["first", "last", "other"], 1, 0)


def test_plan_of_a_new_job_has_each_task_behind_what_it_is_after(store: DirectoryStore) -> None:
    job = make_job(after("last", "first"), Task("x", "first"), Task("x", "other"))
    assert names_of(build_plan(job, read(store), set())) == ["first", "last", "other"]


def test_plan_of_tasks_in_order_leaves_out_what_runs_already(store: DirectoryStore) -> None:
    put_named(store, *STEPS[:2], batch="1")
    plan = build_plan(make_job(*STEPS), read(store), {"1"})
    assert (names_of(plan), plan.why, plan.running) == (["b1", "last"], {"new": 2}, 2)


# --- what others need -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "names", "needed"),
    [
        ("end", ["prep", "mid", "end"], 2),
        ("mid", ["prep", "mid"], 1),
        ("prep", ["prep"], 0),
        ("other", ["other"], 0),
    ],
)
def test_plan_of_chosen_tasks_brings_what_they_are_after(
    store: DirectoryStore, chosen: str, names: list[str], needed: int
) -> None:
    plan = build_plan(make_job(*CHAIN), read(store), set(), only=only(chosen))
    assert names_of(plan) == names
    assert plan.why.get("needed", 0) == needed


@pytest.mark.parametrize(
    ("states", "names"),
    [("S---", ["mid", "end"]), ("SS--", ["end"]), ("F---", ["mid", "end"]), ("SF--", ["end"])],
)
def test_plan_of_chosen_tasks_leaves_what_has_ended(
    store: DirectoryStore, states: str, names: list[str]
) -> None:
    put_named(store, *CHAIN, states=states)
    plan = build_plan(make_job(*CHAIN), read(store), set(), only=only("end"))
    assert names_of(plan) == names


def test_plan_of_chosen_tasks_leaves_what_a_living_batch_has(store: DirectoryStore) -> None:
    put_named(store, *CHAIN[:2], batch="1")
    plan = build_plan(make_job(*CHAIN), read(store), {"1"}, only=only("end"))
    (batch,) = own_part(plan, 2)
    assert names_of(plan) == ["end"]
    assert (batch["after"], batch["waits"]) == ([link(1)], ["1"])


def test_plan_of_chosen_tasks_brings_a_changed_one_that_succeeded_before(
    store: DirectoryStore,
) -> None:
    put_named(store, *CHAIN, states="SSS-")
    job = make_job(Task("y", "prep"), *CHAIN[1:])
    plan = build_plan(job, read(store), set(), "all", only=only("mid"))
    assert names_of(plan) == ["prep", "mid"]


# --- what is behind ---------------------------------------------------------------------------


def test_plan_of_what_one_hand_in_ran_has_nothing_behind(store: DirectoryStore) -> None:
    put_named(store, *STEPS, states="SSSS")
    assert build_plan(make_job(*STEPS), read(store), set()).is_empty


def test_plan_runs_what_is_behind_a_task_that_ran_again(store: DirectoryStore) -> None:
    put_named(store, *STEPS, states="SSSS")
    put_again(store, 2, 0, "succeeded")
    plan = build_plan(make_job(*STEPS), read(store), set())
    assert (names_of(plan), plan.why, plan.done) == (["b1", "last"], {"behind": 2}, 2)
    assert name_behind(plan) == {"b1": "a1", "last": "b1"}


def test_plan_runs_what_is_behind_a_changed_or_a_new_task(store: DirectoryStore) -> None:
    put_named(store, *STEPS, states="SSSS")
    job = make_job(STEPS[0], Task("y", "a2"), *STEPS[2:], after("b2", "a1"))
    plan = build_plan(job, read(store), set())
    assert names_of(plan) == ["a2", "b2", "last"]
    assert plan.why == {"changed": 1, "new": 1, "behind": 1}


def test_plan_runs_what_is_behind_what_runs_for_any_reason(store: DirectoryStore) -> None:
    put_named(store, *STEPS, states="SSS-")
    put_again(store, 2, 3, "succeeded")
    put_again(store, 3, 1, "failed")
    plan = build_plan(make_job(*STEPS), read(store), set())
    assert (names_of(plan), plan.why) == (["a2", "last"], {"failed": 1, "behind": 1})


def test_plan_task_that_waited_for_a_running_batch_is_not_behind(store: DirectoryStore) -> None:
    put_named(store, *STEPS, states="SSS-")
    put_again(store, 2, 3, "succeeded")
    assert build_plan(make_job(*STEPS), read(store), set()).is_empty


def test_plan_what_ran_before_what_it_is_after_was_handed_in_again_is_behind_while_that_runs(
    store: DirectoryStore,
) -> None:
    put_named(store, *STEPS, states="SSSS")
    put_again(store, 2, 1, "")
    plan = build_plan(make_job(*STEPS), read(store), {"2"})
    assert (names_of(plan), plan.running, name_behind(plan)) == (["last"], 1, {"last": "a2"})
    (batch,) = own_part(plan, 3)
    assert (batch["barriers"], batch["waits"]) == ([{"succeeded": "1"}], ["2"])


def test_plan_lost_task_does_not_leave_others_behind_before_it_runs(store: DirectoryStore) -> None:
    put_named(store, *STEPS, states="SSSS")
    put_again(store, 2, 1, "")
    plan = build_plan(make_job(*STEPS), read(store), set(), "failed")
    assert (names_of(plan), plan.left_behind) == ([], {})
    plan = build_plan(make_job(*STEPS), read(store), set())
    assert plan.why == {"unfinished": 1, "behind": 1}


@pytest.mark.parametrize(
    ("outcome", "ended", "names"),
    [
        ("succeeded", "succeeded", ["b"]),
        ("any", "succeeded", ["b"]),
        ("failed", "succeeded", []),
        ("succeeded", "failed", ["a", "b"]),
        ("any", "failed", ["a", "b"]),
        ("failed", "failed", ["a"]),  # it may succeed this time: only then is known what that asks
    ],
)
def test_plan_what_is_behind_depends_on_the_outcome_asked_for(
    store: DirectoryStore, outcome: str, ended: str, names: list[str]
) -> None:
    tasks = [Task("x", "a"), after("b", "a", outcome=outcome)]
    put_named(store, *tasks, states=("F" if outcome == "failed" else "S") + "S")
    put_again(store, 2, 0, ended)
    assert names_of(build_plan(make_job(*tasks), read(store), set())) == names


def test_plan_task_after_a_failure_is_behind_the_next_one(store: DirectoryStore) -> None:
    tasks = [Task("x", "a"), after("b", "a", outcome="failed")]
    put_named(store, *tasks, states="FS")
    put_again(store, 2, 0, "failed")
    plan = build_plan(make_job(*tasks), read(store), set(), "rest")
    assert (names_of(plan), plan.why) == (["b"], {"behind": 1})


@pytest.mark.parametrize("rerun", ["failed", "changed", "none"])
def test_plan_that_leaves_alone_what_is_behind_names_it(store: DirectoryStore, rerun: str) -> None:
    put_named(store, *STEPS, states="SSSS")
    put_again(store, 2, 0, "succeeded")
    plan = build_plan(make_job(*STEPS), read(store), set(), rerun)
    assert (names_of(plan), plan.behind, plan.left_behind) == ([], {}, {2: 0, 3: 2})
    assert plan.done == 2


def test_plan_of_what_is_behind_alone_leaves_the_rest(store: DirectoryStore) -> None:
    put_named(store, *STEPS, Task("x", "bad"), states="SSSSF")
    put_again(store, 2, 0, "succeeded")
    job = make_job(*STEPS, Task("x", "bad"), Task("x", "new"))
    plan = build_plan(job, read(store), set(), "behind")
    assert (names_of(plan), plan.left_failed) == (["b1", "last"], 1)


def test_plan_of_chosen_tasks_leaves_others_behind_and_names_them(store: DirectoryStore) -> None:
    put_named(store, *STEPS, states="SSSS")
    plan = build_plan(make_job(*STEPS), read(store), set(), "all", only=only("a1"))
    assert (names_of(plan), plan.left_behind) == (["a1"], {2: 0, 3: 2})


def test_plan_that_follows_chosen_tasks_takes_what_is_behind_them(store: DirectoryStore) -> None:
    tasks = [*STEPS, Task("x", "c"), after("d", "c")]
    put_named(store, *tasks, states="SSSSSS")
    put_again(store, 2, 4, "succeeded")
    plan = build_plan(make_job(*tasks), read(store), set(), "all", only=only("a1"), follow=True)
    assert (names_of(plan), plan.left_behind) == (["a1", "b1", "last"], {})
    assert plan.why == {"succeeded": 1, "behind": 2}


def test_plan_that_follows_takes_what_followers_need_and_what_is_behind_that(
    store: DirectoryStore,
) -> None:
    tasks = [*STEPS, after("b2", "a1"), after("report", "b2")]
    put_named(store, *tasks, states="SSSS-S")
    plan = build_plan(make_job(*tasks), read(store), set(), "all", only=only("a2"), follow=True)
    assert names_of(plan) == ["a2", "b2", "last", "report"]
    assert plan.why == {"succeeded": 1, "behind": 2, "needed": 1}


def test_plan_of_a_task_runs_first_what_is_behind_before_it(store: DirectoryStore) -> None:
    put_named(store, *STEPS, states="SSSS")
    put_again(store, 2, 0, "succeeded")
    plan = build_plan(make_job(*STEPS), read(store), set(), "all", only=only("last"))
    assert (names_of(plan), plan.why) == (["b1", "last"], {"succeeded": 1, "needed": 1})


def test_plan_of_a_task_that_is_behind_takes_it_for_that(store: DirectoryStore) -> None:
    put_named(store, *STEPS, states="SSSS")
    put_again(store, 2, 0, "succeeded")
    plan = build_plan(make_job(*STEPS), read(store), set(), only=only("b1"))
    assert (names_of(plan), plan.why) == (["b1"], {"behind": 1})
    assert (name_behind(plan), plan.left_behind) == ({"b1": "a1"}, {3: 2})


def test_plan_that_needs_what_is_behind_leaves_none_of_that(store: DirectoryStore) -> None:
    put_named(store, *STEPS, states="SSSS")
    put_again(store, 2, 0, "succeeded")
    plan = build_plan(make_job(*STEPS), read(store), set(), "all", only=only("last"))
    assert (plan.why, plan.left_behind) == ({"succeeded": 1, "needed": 1}, {})
    plan = build_plan(make_job(*STEPS), read(store), set(), "all", only=only("a1", "last"))
    assert (plan.why, plan.left_behind) == ({"succeeded": 2, "needed": 1}, {})


@pytest.mark.parametrize(
    ("before", "now", "is_loose"),
    [
        (["a"], ["a", "b"], True),
        (["a"], ["b"], True),
        ([], ["a"], True),
        (["a"], ["a"], False),
        (["a", "b"], ["a"], False),
        (["a"], [], False),
    ],
)
def test_task_is_loose_that_is_after_something_more(
    before: list[str], now: list[str], *, is_loose: bool
) -> None:
    change = Change(7, after("t", *before), after("t", *now))
    plain = Change(8, Task("x", "u"), Task("x", "u", tags=["new"]))
    matched = MatchedTasks([], range(0), [], [], [change, plain], [], is_plain=True)
    assert list_loose(matched) == ({7: frozenset(before)} if is_loose else {})


def test_plan_canaries_have_nothing_behind_them(store: DirectoryStore) -> None:
    tasks = [Task("x", f"t{n}", options=TaskOptions(template=1)) for n in range(3)]
    put_named(store, *tasks, states="SSS")
    put_again(store, 2, 0, "succeeded")
    assert build_plan(make_job(*tasks, canary=1), read(store), set()).is_empty


def test_plan_task_that_comes_back_leaves_what_is_after_it_behind(store: DirectoryStore) -> None:
    put_named(store, *STEPS, states="SSSS")
    gone = {"command": "", "index": 2, "dropped": True}
    put_hand_in(store, 2, [gone], {}, dropped="2")
    plan = build_plan(make_job(*STEPS), read(store), set())
    assert (names_of(plan), plan.restored) == (["last"], [2])
    put_hand_in(store, 3, [], {}, restored="2")  # by a run that left it alone
    assert names_of(build_plan(make_job(*STEPS), read(store), set())) == ["last"]


def test_plan_task_that_comes_back_may_be_behind_itself(store: DirectoryStore) -> None:
    put_named(store, *STEPS, states="SSSS")
    put_hand_in(store, 2, [{"command": "", "index": 2, "dropped": True}], {}, dropped="2")
    put_again(store, 3, 0, "succeeded")
    put_hand_in(store, 4, [], {}, restored="2")
    assert names_of(build_plan(make_job(*STEPS), read(store), set())) == ["b1", "last"]


@pytest.mark.parametrize(
    ("before", "now", "names"),
    [
        (["a1"], ["a1", "a2"], ["last"]),
        (["a1"], ["a*"], ["last"]),
        (["a1", "a2"], ["a*"], []),
        (["a*"], ["a2"], []),
        ([], ["a1"], ["last"]),
        (["a1"], [], []),
    ],
)
def test_plan_task_that_is_after_more_than_it_waited_for_is_behind(
    store: DirectoryStore, before: list[str], now: list[str], names: list[str]
) -> None:
    put_named(store, *STEPS[:2], after("last", *before), states="SSS")
    plan = build_plan(make_job(*STEPS[:2], after("last", *now)), read(store), set())
    assert names_of(plan) == names


def test_plan_what_an_earlier_hand_in_ran_was_there_however_late_it_is_named(
    store: DirectoryStore,
) -> None:
    put_named(store, *STEPS[:2], Task("x", "last"), states="SS-")
    put_again(store, 2, 2, "succeeded")
    assert build_plan(make_job(*STEPS[:2], after("last", "a*")), read(store), set()).is_empty
