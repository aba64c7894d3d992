"""What is to run: names, identity, and what each task's past says."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.store import put_hand_in, put_start
from umpteen.history.history import History
from umpteen.job.dependencies import GraphError
from umpteen.job.settings import Setting, merge_settings
from umpteen.job.spec import Job, Retry, Task, TaskOptions
from umpteen.model.dependencies import link
from umpteen.planning import plan as planning
from umpteen.planning.batch_files import LOCAL_BATCH_CAP, Past, build_batches, build_task_lines
from umpteen.planning.choosing import Chosen
from umpteen.planning.known import read_known
from umpteen.planning.plan import Plan, build_settings
from umpteen.store.directory import DirectoryStore


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


def build_plan(
    job: Job, history: History, living: set[str], rerun: str = "default", **more: Any
) -> Plan:
    known = read_known(job, history, rerun)
    return planning.build_plan(job, history, known, living, rerun, **more)


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


# --- batches ----------------------------------------------------------------------------------


def decode(plan: Plan, first: int = 1, **more: Any) -> list[dict[str, Any]]:
    attempts, now_s = more.get("attempts", {}), more.get("now_s", 0.0)
    return [
        json.loads(content)
        for _, content in build_batches(plan, "/store", "/here", first, attempts, now_s)
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
    (batch,) = decode(plan, attempts={1: Past(4, "token")}, now_s=1000.0)
    assert batch["umpteen"]["attempts"] == {"0": [4, "token", []]}
    assert batch["umpteen"]["deadline_s"] == 1060


def test_task_lines_say_what_was_added_changed_and_dropped(store: DirectoryStore) -> None:
    put_job(store, "a", "b", "c", states="SSS")
    plan = build_plan(make_job("a", "b2", "n1", "n2"), read(store), set())
    lines = b"".join(build_task_lines(plan))
    parsed = [json.loads(line) for line in lines.splitlines()]
    added = [line for line in parsed if "index" not in line]
    assert [line["command"] for line in added] == ["n2"]
    assert {line["index"]: line["command"] for line in parsed if "index" in line} == {
        1: "b2", 2: "n1"
    }  # fmt: skip


# --- tasks that wait for others ---------------------------------------------------------------


def after(name: str, *others: str, outcome: str = "succeeded", command: str = "x") -> Task:
    return Task(command, name, options=TaskOptions(after=[(other, outcome) for other in others]))


def put_named(
    store: DirectoryStore, *tasks: Task, states: str = "", batch: str = "1", **more: Any
) -> None:
    """These tasks as a hand-in of one batch; letters as for `put_job`, and K for skipped."""
    lines = [json.loads(msgspec.json.encode(task)) for task in tasks]
    put_hand_in(store, 1, lines, {batch: f"0-{len(lines) - 1}"}, **more)
    words = {"S": "succeeded", "F": "failed", "W": "waiting", "K": "skipped", "C": "cancelled"}
    records = [
        {"task": index, "digest": "", "attempt": 1, "state": words[letter]}
        for index, letter in enumerate(states)
        if letter != "-"
    ]
    if states:
        put_start(store, batch, [*records, {"event": "end", "left": 0, "states": {}}])


def own_part(plan: Plan, first: int = 1) -> list[dict[str, Any]]:
    return [batch["umpteen"] for batch in decode(plan, first)]


def test_batch_of_tasks_that_wait_for_nothing_says_nothing_of_it(store: DirectoryStore) -> None:
    (batch,) = own_part(build_plan(make_job("a", "b"), read(store), set()))
    assert not {"graph", "after", "barriers", "waits"} & set(batch)


def test_batch_has_a_barrier_for_all_that_wait_for_the_same(store: DirectoryStore) -> None:
    job = make_job(
        Task("x", "p1"), Task("x", "p2"), after("a", "p*"), after("b", "p*"),
        after("c", "p1", outcome="any"), Task("x", "free"),
    )  # fmt: skip
    (batch,) = own_part(build_plan(job, read(store), set()))
    assert batch["graph"] is True
    assert batch["after"] == [-1, -1, 0, 0, 1, -1]
    assert batch["barriers"] == [{"succeeded": "0-1"}, {"any": "0"}]
    assert batch["waits"] == []


def test_batch_barrier_has_indices_by_outcome(store: DirectoryStore) -> None:
    terms = TaskOptions(after=[("p1", "any"), ("p2", "failed"), ("p3", "succeeded")])
    job = make_job(*(Task("x", f"p{n}") for n in (1, 2, 3)), Task("x", "last", options=terms))
    (batch,) = own_part(build_plan(job, read(store), set()))
    assert batch["barriers"] == [{"succeeded": "2", "any": "0", "failed": "1"}]


def test_batch_names_the_one_task_whose_success_is_waited_for_by_its_index(
    store: DirectoryStore,
) -> None:
    put_job(store, "a", "b", states="SS")
    job = make_job("a", "b", Task("x", "prep"), after("new", "prep"))
    (batch,) = own_part(build_plan(job, read(store), set()))
    assert (batch["indices"], batch["after"], batch["barriers"]) == ("2-3", [-1, link(2)], [])


def test_batch_has_tasks_in_an_order_that_will_do(store: DirectoryStore) -> None:
    job = make_job(after("last", "first"), Task("x", "first"), Task("x", "other"))
    plan = build_plan(job, read(store), set())
    (batch,) = own_part(plan)
    assert names_of(plan) == batch["names"] == ["first", "last", "other"]
    assert (batch["indices"], batch["after"]) == ("1,0,2", [-1, link(1), -1])


def test_plan_priority_goes_first(store: DirectoryStore) -> None:
    job = make_job("a", Task("b", options=TaskOptions(priority=1)), "c")
    assert list(build_plan(job, read(store), set()).to_run) == [1, 0, 2]


def test_batches_name_those_they_wait_for(store: DirectoryStore) -> None:
    rest = [Task("x", f"t{n}") for n in range(LOCAL_BATCH_CAP)]
    job = make_job(Task("x", "prep"), *rest, after("last", "prep", "t0"), after("end", "last"))
    first, second = own_part(build_plan(job, read(store), set()), 7)
    assert (first["after"], first["barriers"], first["waits"]) == ([], [], [])
    assert (second["after"], second["waits"]) == ([-1, 0, link(LOCAL_BATCH_CAP + 1)], ["7"])
    assert second["barriers"] == [{"succeeded": "0-1"}]


def test_batch_waits_for_the_batch_of_a_task_that_runs(store: DirectoryStore) -> None:
    put_named(store, Task("x", "slow"), batch="1")
    job = make_job(Task("x", "slow"), after("new", "slow"))
    plan = build_plan(job, read(store), {"1"})
    (batch,) = own_part(plan, 2)
    assert (names_of(plan), plan.running) == (["new"], 1)
    assert (batch["after"], batch["barriers"], batch["waits"]) == ([link(0)], [], ["1"])


@pytest.mark.parametrize(
    ("outcome", "state", "is_met"),
    [
        ("succeeded", "S", True), ("succeeded", "F", False), ("succeeded", "K", False),
        ("any", "S", True), ("any", "F", True), ("any", "K", True),
        ("failed", "S", False), ("failed", "F", True), ("failed", "C", True),
        ("failed", "K", False),
    ],
)  # fmt: skip
def test_batch_needs_no_barrier_for_what_has_ended(
    store: DirectoryStore, outcome: str, state: str, is_met: bool
) -> None:
    put_named(store, Task("x", "prep"), states=state)
    job = make_job(Task("x", "prep"), after("new", "prep", outcome=outcome))
    (batch,) = own_part(build_plan(job, read(store), set(), "none"))
    if is_met:
        assert (batch["after"], batch["barriers"]) == ([], [])
    else:
        how = {"S": "succeeded", "F": "failed", "K": "was skipped"}[state]
        assert (batch["after"], batch["barriers"]) == (
            [0],
            [{"doomed": f"after prep, which {how}"}],
        )


def test_batch_barrier_keeps_what_is_still_to_come(store: DirectoryStore) -> None:
    put_named(store, Task("x", "p1"), Task("x", "p2"), states="SF")
    job = make_job(Task("x", "p1"), Task("x", "p2"), after("new", "p*"))
    plan = build_plan(job, read(store), set())
    (batch,) = own_part(plan)
    assert names_of(plan) == ["p2", "new"]
    assert (batch["after"], batch["barriers"]) == ([-1, 0], [{"succeeded": "1"}])


def test_batch_that_is_doomed_waits_for_no_other(store: DirectoryStore) -> None:
    put_named(store, Task("x", "bad"), Task("x", "slow"), states="F-")
    job = make_job(Task("x", "bad"), Task("x", "slow"), after("new", "bad", "slow"))
    (batch,) = own_part(build_plan(job, read(store), {"1"}, "none"), 2)
    assert (batch["barriers"], batch["waits"]) == ([{"doomed": "after bad, which failed"}], [])


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


# --- what others need -------------------------------------------------------------------------


CHAIN = [Task("x", "prep"), after("mid", "prep"), after("end", "mid"), Task("x", "other")]


def only(*names: str) -> Chosen:
    return lambda _, task: task.name in names


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


STEPS = [Task("x", "a1"), Task("x", "a2"), after("b1", "a1"), after("last", "b*", "a2")]


def put_again(store: DirectoryStore, number: int, index: int, state: str, **more: Any) -> None:
    """One more hand-in, which has one task run again."""
    put_hand_in(store, number, [], {str(number): str(index)}, **more)
    if state:
        record = {"task": index, "digest": "", "attempt": number, "state": state}
        put_start(store, str(number), [record, {"event": "end", "left": 0, "states": {}}])


def name_behind(plan: Plan) -> dict[str, str]:
    return {plan.by_index(i).name: plan.by_index(o).name for i, o in plan.behind.items()}


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
        after("a", "b", outcome="failed"),
    ],
)
def test_plan_other_terms_are_an_update_and_no_change(store: DirectoryStore, task: Task) -> None:
    put_named(store, Task("x", "a"), Task("x", "b"), states="SS")
    plan = build_plan(make_job(task, Task("x", "b")), read(store), set())
    (update,) = plan.updates
    assert (update.index, update.before, update.now) == (0, Task("x", "a"), task)
    assert (plan.changes, list(plan.to_run), plan.is_empty) == ([], [], True)


def test_task_lines_have_updates(store: DirectoryStore) -> None:
    put_named(store, Task("x", "a"), states="S")
    task = Task("x", "a", options=TaskOptions(retries=[Retry(["failed"], times=3)], memory=5))
    plan = build_plan(make_job(task), read(store), set())
    (line,) = b"".join(build_task_lines(plan)).splitlines()
    assert json.loads(line) == {
        "command": "x", "name": "a", "index": 0,
        "terms": {"retries": [{"when": ["failed"], "times": 3}], "memory": 5},
    }  # fmt: skip


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


# --- what tasks have beside their commands ----------------------------------------------------


def test_batch_has_terms_that_a_runner_needs_and_no_others(store: DirectoryStore) -> None:
    terms = TaskOptions(
        retries=[Retry(["failed"], memory_factor=2.0)], cpus=2, memory=5, gpus=1,
        expect=["m"], output_limit=9, priority=3, template=4,
    )  # fmt: skip
    (batch,) = own_part(
        build_plan(make_job(Task("x", "a", options=terms), "y"), read(store), set())
    )
    assert batch["extras"] == {"0": {
        "retries": [{"when": ["failed"], "memory_factor": 2.0}], "cpus": 2, "memory": 5, "gpus": 1,
        "expect": ["m"], "output_limit": 9,
    }}  # fmt: skip
    assert batch["common"] == {}


def test_batch_says_once_what_all_its_tasks_have(store: DirectoryStore) -> None:
    job = make_job(*(Task("x", f"t{n}", timeout_s=5.0) for n in range(3)))
    (batch,) = own_part(build_plan(job, read(store), set()))
    assert (batch["common"], batch["extras"]) == ({"timeout_s": 5.0}, {})


@pytest.mark.parametrize("other", [Task("x"), Task("x", timeout_s=6.0)])
def test_batch_says_apart_what_differs(store: DirectoryStore, other: Task) -> None:
    job = make_job(Task("x", timeout_s=5.0), Task("x", timeout_s=5.0), other)
    (batch,) = own_part(build_plan(job, read(store), set()))
    assert batch["common"] == {}
    assert batch["extras"]["1"] == {"timeout_s": 5.0}
    assert batch["extras"].get("2", {}).get("timeout_s") == other.timeout_s


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (None, None)),
        ({"max_failures": 3}, (3, False)),
        ({"max_failures": 1, "fail_fast": True}, (1, True)),
    ],
)
def test_batch_has_the_failures_that_are_too_many(
    store: DirectoryStore, settings: dict[str, Any], expected: tuple[int | None, bool | None]
) -> None:
    (batch,) = own_part(build_plan(make_job("a", **settings), read(store), set()))
    assert (batch.get("max_failures"), batch.get("fail_fast")) == expected
