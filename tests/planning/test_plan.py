"""What is to run: names, identity, and what each task's past says."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.planning.conftest import (
    after,
    build_plan,
    make_job,
    names_of,
    own_part,
    put_again,
    put_job,
    put_named,
    read,
)
from tests.support.store import put_hand_in, put_start
from umpteen.job.dependencies import GraphError
from umpteen.job.spec import Job, Retry, Task, TaskOptions
from umpteen.planning.choosing import Chosen
from umpteen.planning.plan import build_settings
from umpteen.store.directory import DirectoryStore

# --- which task is which -----------------------------------------------------------------------


def test_plan_of_a_new_job_runs_all_in_order(store: DirectoryStore) -> None:
    plan = build_plan(make_job("a", "b"), read(store), set())
    assert list(plan.to_run) == [0, 1]
    assert plan.why == {"new": 2}
    assert [task.command for task in plan.added] == ["a", "b"]


def test_plan_of_the_same_job_runs_nothing(store: DirectoryStore) -> None:
    put_job(store, "a", "b", states="SS")
    plan = build_plan(make_job("a", "b"), read(store), set())
    assert plan.is_empty
    assert plan.done == 2


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_plan_inserted_line_is_the_only_new_one(store: DirectoryStore, place: int) -> None:
    put_job(store, "a", "b", "c", states="SSS")
    commands = ["a", "b", "c"]
    commands.insert(place, "new")
    plan = build_plan(make_job(*commands), read(store), set())
    assert names_of(plan) == ["3"]
    assert [task.command for task in plan.added] == ["new"]
    assert (plan.changes, plan.dropped) == ([], [])


def test_plan_kth_of_equal_lines_keeps_the_kth_name(store: DirectoryStore) -> None:
    put_job(store, "a", "a", "b", "a", states="SFSF")
    plan = build_plan(make_job("a", "b", "a", "a"), read(store), set())
    assert names_of(plan) == ["1", "3"]
    assert (plan.added, plan.changes, plan.dropped) == ([], [], [])


def test_plan_line_changed_in_place_is_a_changed_task(store: DirectoryStore) -> None:
    put_job(store, "a", "b", states="SS")
    plan = build_plan(make_job("a", "b2"), read(store), set())
    (change,) = plan.changes
    assert (change.index, change.before.command, change.now.command) == (1, "b", "b2")
    assert plan.why == {"changed": 1}
    assert plan.added == []


def test_plan_lines_in_another_order_change_nothing(store: DirectoryStore) -> None:
    put_job(store, "a", "b", "c", states="SSS")
    assert build_plan(make_job("c", "a", "b"), read(store), set()).is_empty


def test_plan_removed_task_is_dropped(store: DirectoryStore) -> None:
    put_job(store, "a", "b", "c", states="SFS")
    plan = build_plan(make_job("a", "c"), read(store), set())
    assert (plan.dropped, list(plan.to_run), plan.done) == ([1], [], 2)


def test_plan_dropped_task_is_dropped_once(store: DirectoryStore) -> None:
    put_job(store, "a", "b", states="SF")
    put_hand_in(store, 2, [{"command": "", "index": 1, "dropped": True}], {}, dropped="1")
    assert build_plan(make_job("a"), read(store), set()).is_empty


def test_plan_part_of_a_job_drops_nothing(store: DirectoryStore) -> None:
    put_job(store, "a", "b", states="SS")
    job = make_job("a")
    part = Job(job.name, job.tasks, job.settings, is_part=True)
    assert build_plan(part, read(store), set()).dropped == []


@pytest.mark.parametrize(
    ("task", "is_changed"),
    [
        (Task("a", "t"), False),
        (Task("a", "t", timeout_s=5, tags=["x"]), False),
        (Task("b", "t"), True),
        (Task(["a"], "t"), True),
        (Task("a", "t", env={"A": "1"}), True),
        (Task("a", "t", cwd="."), True),
    ],
)
def test_plan_identity_is_command_environment_and_folder(
    store: DirectoryStore, task: Task, is_changed: bool
) -> None:
    put_hand_in(store, 1, [{"command": "a", "name": "t"}], {"1": "0"})
    put_start(store, "1", [{"task": 0, "digest": "", "attempt": 1, "state": "succeeded"}])
    plan = build_plan(make_job(task), read(store), set())
    assert bool(plan.changes) == is_changed == bool(plan.to_run)


def test_plan_named_task_is_known_by_its_name_wherever_it_stands(store: DirectoryStore) -> None:
    lines = [{"command": "x", "name": "first"}, {"command": "y", "name": "second"}]
    put_hand_in(store, 1, lines, {"1": "0-1"})
    done = [{"task": n, "digest": "", "attempt": 1, "state": "succeeded"} for n in (0, 1)]
    put_start(store, "1", done)
    job = make_job(Task("y", "second"), Task("x", "first"))
    assert build_plan(job, read(store), set()).is_empty


@given(before=st.lists(st.sampled_from("abc"), min_size=1, max_size=8),
       after=st.lists(st.sampled_from("abcd"), min_size=1, max_size=8))  # fmt: skip
def test_plan_names_are_unique_and_kept_where_they_can_be(
    tmp_path_factory: pytest.TempPathFactory, before: list[str], after: list[str]
) -> None:
    store = DirectoryStore(str(tmp_path_factory.mktemp("store")))
    put_job(store, *before, states="S" * len(before))
    plan = build_plan(make_job(*after), read(store), set(), "all")
    names = names_of(plan)
    assert len(set(names)) == len(after)
    # A task of which there were as many before is never run anew under another name.
    for command in set(before):
        kept = {str(index) for index, other in enumerate(before) if other == command}
        now = {name for name, other in zip(names, after, strict=True) if other == command}
        assert len(now & kept) == min(len(kept), len(now))


# --- what runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rerun", "why"),
    [
        ("default", {"failed": 1, "unfinished": 1, "changed": 1, "new": 1}),
        ("all", {"succeeded": 1, "failed": 1, "unfinished": 1, "changed": 1, "new": 1}),
        ("failed", {"failed": 1}),
        ("changed", {"changed": 1}),
        ("none", {"new": 1}),
    ],
)
def test_plan_rerun_chooses_by_what_became_of_a_task(
    store: DirectoryStore, rerun: str, why: dict[str, int]
) -> None:
    put_job(store, "done", "bad", "cut", "old", states="SFWS")
    job = make_job("done", "bad", "cut", "now", "new")
    assert build_plan(job, read(store), set(), rerun).why == why


def test_plan_tasks_of_a_living_batch_are_left_to_it(store: DirectoryStore) -> None:
    put_job(store, "a", "b", "c")
    put_start(store, "1", [{"task": 0, "digest": "", "attempt": 1, "state": "failed"}])
    plan = build_plan(make_job("a", "b", "c", "d"), read(store), {"1"})
    assert (names_of(plan), plan.running) == (["0", "3"], 2)


def test_plan_lost_batch_goes_in_again_as_it_is(store: DirectoryStore) -> None:
    job = make_job("a", "b", slots=2)
    put_job(store, "a", "b", settings=build_settings(job))
    put_start(store, "1", [{"task": 0, "digest": "", "attempt": 1, "state": "succeeded"}])
    plan = build_plan(job, read(store), set())
    assert plan.again == ["1"]
    assert (list(plan.to_run), plan.closed) == ([], [])
    assert plan.why == {"unfinished": 1}


def test_plan_lost_batch_with_other_settings_is_closed(store: DirectoryStore) -> None:
    put_job(store, "a", "b", settings=build_settings(make_job("a", slots=3)))
    plan = build_plan(make_job("a", "b", slots=2), read(store), set())
    assert (plan.again, plan.closed, list(plan.to_run)) == ([], ["1"], [0, 1])


def test_plan_lost_batch_with_a_changed_task_is_closed(store: DirectoryStore) -> None:
    job = make_job("a", "b2", slots=2)
    put_job(store, "a", "b", settings=build_settings(job))
    plan = build_plan(job, read(store), set())
    assert (plan.again, plan.closed, list(plan.to_run)) == ([], ["1"], [0, 1])


def test_plan_equal_source_is_not_compared_task_by_task(store: DirectoryStore) -> None:
    put_job(store, "a", "b", states="SF", source="digest", is_plain=True)
    # That the tasks differ cannot be, so it goes unseen: nobody looked.
    plan = build_plan(make_job("x", "y", digest="digest"), read(store), set())
    assert (list(plan.to_run), plan.changes) == ([1], [])


# --- tasks that wait for others ---------------------------------------------------------------


def test_plan_priority_goes_first(store: DirectoryStore) -> None:
    job = make_job("a", Task("b", options=TaskOptions(priority=1)), "c")
    assert list(build_plan(job, read(store), set()).to_run) == [1, 0, 2]


def test_plan_skipped_tasks_run_again_with_what_failed(store: DirectoryStore) -> None:
    tasks = [Task("x", "prep"), after("a", "prep"), after("b", "a")]
    put_named(store, *tasks, states="FKK")
    plan = build_plan(make_job(*tasks), read(store), set())
    assert names_of(plan) == ["prep", "a", "b"]
    assert plan.why == {"failed": 1, "skipped": 2}


def test_plan_canary_puts_the_others_behind_the_first(store: DirectoryStore) -> None:
    job = make_job(
        *(Task("x", f"t{n}", options=TaskOptions(template=1)) for n in range(4)), canary=2
    )
    (batch,) = own_part(build_plan(job, read(store), set()))
    assert (batch["after"], batch["barriers"]) == ([-1, -1, 0, 0], [{"succeeded": "0-1"}])


def test_plan_of_a_cycle_is_refused(store: DirectoryStore) -> None:
    with pytest.raises(GraphError, match="a after b after a"):
        build_plan(make_job(after("a", "b"), after("b", "a")), read(store), set())


def test_plan_unnamed_tasks_may_wait_for_named_ones_in_every_run(store: DirectoryStore) -> None:
    tasks = [Task("x", "prep"), after("", "p*")]
    for _ in range(2):
        plan = build_plan(make_job(*tasks), read(store), set(), "all")
        (batch,) = own_part(plan)
        assert (batch["after"], batch["barriers"]) == ([-1, 0], [{"succeeded": "0"}])
        if not read(store).count:
            put_named(store, *tasks, states="SS")


@pytest.mark.parametrize("chosen", [None, lambda _, task: task.name.startswith("b")])
def test_plan_ten_thousand_after_ten_thousand_is_fast(
    store: DirectoryStore, chosen: Chosen | None
) -> None:
    count = 10_000
    tasks = [Task("x", f"a{n}") for n in range(count)]
    tasks += [after(f"b{n}", "a*") for n in range(count)]
    began_s = time.process_time()
    batches = own_part(build_plan(make_job(*tasks), read(store), set(), only=chosen))
    took_s = time.process_time() - began_s
    assert [batch["barriers"] for batch in batches] == [
        [], [], [{"succeeded": "0-9999"}], [{"succeeded": "0-9999"}]
    ]  # fmt: skip
    assert took_s < 10, "one by one these are 10⁸ edges, and a minute"


# --- what is behind ---------------------------------------------------------------------------


def test_plan_of_a_hundred_thousand_done_in_two_hand_ins_is_fast(store: DirectoryStore) -> None:
    count = 100_000
    tasks = [Task("x", "t0"), *(after(f"t{n}", f"t{n - 1}") for n in range(1, count))]
    lines = [json.loads(msgspec.json.encode(task)) for task in tasks]
    put_hand_in(store, 1, lines, {"1": f"0-{count - 1}"}, source="s", is_plain=True)
    end = {"event": "end", "left": 0, "states": {"succeeded": f"0-{count - 1}"}}
    put_start(
        store, "1", [{"event": "of a length for which the end alone is read", "": "x" * 99999}, end]
    )
    put_again(store, 2, 0, "succeeded")
    history = read(store)
    began_s = time.process_time()
    plan = build_plan(make_job(*tasks, digest="s"), history, set())
    assert (len(plan.to_run), plan.why) == (count - 1, {"behind": count - 1})
    assert time.process_time() - began_s < 5


# --- what changes nothing that ran ------------------------------------------------------------


@pytest.mark.parametrize(
    "task",
    [
        Task("x", "a", timeout_s=5.0),
        Task("x", "a", tags=["new"]),
        Task("x", "a", options=TaskOptions(retries=[Retry(["failed"])])),
        Task("x", "a", options=TaskOptions(cpus=2)),
        Task("x", "a", options=TaskOptions(needs=("gpu",))),
        after("a", "b", outcome="failed"),
    ],
)
def test_plan_other_terms_are_an_update_and_no_change(store: DirectoryStore, task: Task) -> None:
    put_named(store, Task("x", "a"), Task("x", "b"), states="SS")
    plan = build_plan(make_job(task, Task("x", "b")), read(store), set())
    (update,) = plan.updates
    assert (update.index, update.before, update.now) == (0, Task("x", "a"), task)
    assert (plan.changes, list(plan.to_run), plan.is_empty) == ([], [], True)


# --- batches that were lost -------------------------------------------------------------------


def test_plan_lost_batch_of_tasks_that_wait_is_closed(store: DirectoryStore) -> None:
    tasks = [Task("x", "prep"), after("a", "prep")]
    job = make_job(*tasks, slots=2)
    put_named(store, *tasks, settings=build_settings(job))
    put_start(store, "1", [{"task": 0, "digest": "", "attempt": 1, "state": "succeeded"}])
    plan = build_plan(job, read(store), set())
    (batch,) = own_part(plan, 2)
    assert (plan.again, plan.closed, names_of(plan)) == ([], ["1"], ["a"])
    assert (batch["after"], batch["barriers"]) == ([], [])


def test_plan_lost_batch_with_retries_goes_in_again(store: DirectoryStore) -> None:
    tasks = [Task("x", "a", options=TaskOptions(retries=[Retry(["failed"], times=3)]))]
    job = make_job(*tasks, slots=2)
    put_named(store, *tasks, settings=build_settings(job))
    retried = {"task": 0, "digest": "", "attempt": 1, "state": "failed", "retry": True}
    put_start(store, "1", [retried])
    plan = build_plan(job, read(store), set())
    assert (plan.again, plan.closed) == (["1"], [])
    assert plan.why == {"unfinished": 1}


@pytest.mark.parametrize("change", [{"max_failures": 3}, {"fail_fast": True}])
def test_plan_lost_batch_with_other_limits_is_closed(
    store: DirectoryStore, change: dict[str, Any]
) -> None:
    put_job(store, "a", settings=build_settings(make_job("a", slots=2)))
    plan = build_plan(make_job("a", slots=2, **change), read(store), set())
    assert (plan.again, plan.closed, list(plan.to_run)) == ([], ["1"], [0])
