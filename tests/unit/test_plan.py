"""What is to run: names, identity, and what each task's past says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.store import put_hand_in, put_start
from umpteen.history import History
from umpteen.job import Job, Task
from umpteen.plan import (
    LOCAL_BATCH_CAP,
    Plan,
    build_batches,
    build_plan,
    build_settings,
    build_task_lines,
)
from umpteen.results.directory import DirectoryStore
from umpteen.settings import Setting, merge_settings


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    """A store in which nothing is."""
    return DirectoryStore(str(tmp_path / "store"))


def make_job(*tasks: Task | str, digest: str = "", **settings: Any) -> Job:
    given_settings = {key: Setting(value, "test") for key, value in settings.items()}
    made = [Task(task) if isinstance(task, str) else task for task in tasks]
    return Job("job", made, merge_settings(given_settings), digest)


def read(store: DirectoryStore) -> History:
    history = History(store)
    history.refresh()
    return history


def put_job(store: DirectoryStore, *commands: str, states: str = "", **more: Any) -> None:
    """Batch 1 with these unnamed tasks; a letter a task: Succeeded, Failed, Waiting, - for none."""
    lines = [{"command": command} for command in commands]
    put_hand_in(store, 1, lines, {"1": f"0-{len(lines) - 1}"}, **more)
    words = {"S": "succeeded", "F": "failed", "W": "waiting"}
    if states:
        records = [
            {"task": index, "digest": "", "attempt": 1, "state": words[letter]}
            for index, letter in enumerate(states)
            if letter != "-"
        ]
        put_start(store, "1", [*records, {"event": "end", "left": 0, "states": {}}])


def names_of(plan: Plan) -> list[str]:
    return [plan.by_index(index).name or str(index) for index in plan.to_run]


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
    assert [batch.batch for batch in plan.again] == ["1"]
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


# --- batches ----------------------------------------------------------------------------------------


def decode(plan: Plan, first: int = 1, **more: Any) -> list[dict[str, Any]]:
    attempts, now_s = more.get("attempts", {}), more.get("now_s", 0.0)
    return [
        json.loads(content) for _, content in build_batches(plan, "/store", first, attempts, now_s)
    ]


def test_batches_are_numbered_and_capped(store: DirectoryStore) -> None:
    plan = build_plan(make_job(*["true"] * (LOCAL_BATCH_CAP + 1)), read(store), set())
    first, second = decode(plan, 7)
    assert (first["umpteen"]["batch"], second["umpteen"]["batch"]) == ("7", "8")
    assert first["umpteen"]["indices"] == f"0-{LOCAL_BATCH_CAP - 1}"
    assert second["umpteen"]["indices"] == str(LOCAL_BATCH_CAP)
    assert (len(first["runs"]), len(second["runs"])) == (LOCAL_BATCH_CAP, 1)


def test_batch_has_the_keys_of_sc_and_ours_beside(store: DirectoryStore) -> None:
    job = make_job(Task("a", "x/y"), Task("b", output="/own", results_dir="/tmp/r"), slots=3)
    (batch,) = decode(build_plan(job, read(store), set()))
    assert set(batch) == {"nprocs", "remote_output_path", "runs", "umpteen"}
    assert (batch["nprocs"], batch["remote_output_path"]) == (3, "/store")
    assert batch["runs"] == [
        {"cmd": "a", "remote_output_path": "/store/x/y"},
        {"cmd": "b", "remote_output_path": "/own", "local_results_dir": "/tmp/r"},
    ]
    assert batch["umpteen"]["names"] == ["x/y", "1"]


def test_batch_command_without_shell_is_quoted_for_others(store: DirectoryStore) -> None:
    plan = build_plan(make_job(Task(["echo", "a b", "$x"])), read(store), set())
    (batch,) = decode(plan)
    assert batch["runs"][0]["cmd"] == "echo 'a b' '$x'"
    assert batch["umpteen"]["extras"] == {"0": {"argv": ["echo", "a b", "$x"]}}


def test_batch_has_the_attempts_made_before_and_the_deadline(store: DirectoryStore) -> None:
    put_job(store, "a", "b", states="SF")
    plan = build_plan(make_job("a", "b", deadline_s=60.0), read(store), set())
    (batch,) = decode(plan, attempts={1: (4, "token")}, now_s=1000.0)
    assert batch["umpteen"]["attempts"] == {"0": [4, "token"]}
    assert batch["umpteen"]["deadline_s"] == 1060


def test_task_lines_say_what_was_added_changed_and_dropped(store: DirectoryStore) -> None:
    put_job(store, "a", "b", "c", states="SSS")
    lines = build_task_lines(build_plan(make_job("a", "b2", "n1", "n2"), read(store), set()))
    parsed = [json.loads(line) for line in lines.splitlines()]
    added = [line for line in parsed if "index" not in line]
    assert [line["command"] for line in added] == ["n2"]
    assert {line["index"]: line["command"] for line in parsed if "index" in line} == {
        1: "b2", 2: "n1"
    }  # fmt: skip
