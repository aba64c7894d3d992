"""Batch files and task lines of a plan."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.planning.conftest import (
    after,
    build_plan,
    decode,
    make_job,
    names_of,
    own_part,
    put_job,
    put_named,
    read,
)
from umpteen.job.spec import Retry, Task, TaskOptions
from umpteen.model.dependencies import link
from umpteen.model.states import FORMAT_VERSION
from umpteen.planning.batch_files import (
    LOCAL_BATCH_CAP,
    NEEDS,
    Past,
    build_batches,
    build_task_lines,
)
from umpteen.planning.batching import BatchSizes
from umpteen.planning.plan import Plan
from umpteen.store.directory import DirectoryStore

# --- batches ----------------------------------------------------------------------------------


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


def test_batch_says_of_a_plain_job_no_more_than_it_must(store: DirectoryStore) -> None:
    given: dict[str, Any] = {"status_file": "code", "grace_s": 3.0, "submitted_from": "/from"}
    (batch,) = decode(build_plan(make_job("a", **given), read(store), set()))
    assert (batch["nprocs"], batch["runs"]) == (1, [{"cmd": "a", "remote_output_path": "/store/0"}])
    assert batch["umpteen"] == {
        "version": FORMAT_VERSION, "job": "job", "batch": "1", "indices": "0", "names": ["0"],
        "extras": {}, "common": {}, "status_file": "code", "grace_s": 3.0, "cwd": "/here",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"live": True}, {"live": True}),
        ({"synced": [("0a", "/there", "")]}, {"synced": [["0a", "/there", ""]]}),
        ({"deadline_s": 60.0}, {"deadline_s": 160.0}),
        ({"max_failures": 2}, {"max_failures": 2, "fail_fast": False}),
        ({"fail_fast": True}, {}),
    ],
)
def test_batch_says_what_is_asked_of_the_job_as_a_whole(
    store: DirectoryStore, given: dict[str, Any], said: dict[str, Any]
) -> None:
    (plain,) = decode(build_plan(make_job("a"), read(store), set()))
    (batch,) = decode(build_plan(make_job("a", **given), read(store), set()), now_s=100.0)
    assert batch["umpteen"] == {**plain["umpteen"], **said}


@pytest.mark.parametrize(
    ("named", "names"),
    [(["", ""], ["0", "1"]), (["x", ""], ["x", "1"]), (["x", "y"], ["x", "y"])],
)
def test_batch_names_a_task_by_its_index_where_it_has_no_name(
    store: DirectoryStore, named: list[str], names: list[str]
) -> None:
    job = make_job(*(Task("a", name) for name in named))
    (batch,) = decode(build_plan(job, read(store), set()))
    assert batch["umpteen"]["names"] == names
    assert [run["remote_output_path"] for run in batch["runs"]] == [f"/store/{n}" for n in names]


def test_batches_have_the_tasks_and_sizes_that_are_given(store: DirectoryStore) -> None:
    plan = build_plan(make_job("a", "b", "c"), read(store), set())
    sizes = BatchSizes([2, 0, 1], [1, 2])
    contents = [
        json.loads(content) for _, content in build_batches(plan, "/s", "/here", 4, {}, 0.0, sizes)
    ]
    assert [content["umpteen"]["indices"] for content in contents] == ["2", "0-1"]
    assert [[run["cmd"] for run in content["runs"]] for content in contents] == [["c"], ["a", "b"]]


def test_batch_is_told_of_with_the_most_that_a_task_of_it_needs(store: DirectoryStore) -> None:
    terms = [TaskOptions(gpus=2, cpus=1, memory=3), TaskOptions(cpus=5), None, TaskOptions(gpus=1)]
    job = make_job(*(Task("x", f"t{n}", options=each) for n, each in enumerate(terms)))
    plan = build_plan(job, read(store), set())
    sizes = BatchSizes(range(4), [2, 1, 1])
    made = [new for new, _ in build_batches(plan, "/store", "/here", 1, {}, 0.0, sizes)]
    assert [(new.handed.batch, new.handed.indices) for new in made] == [
        ("1", "0-1"), ("2", "2"), ("3", "3")
    ]  # fmt: skip
    assert [dict(zip(NEEDS, new.needs, strict=True)) for new in made] == [
        {"gpus": 2, "cpus": 5, "memory": 3},
        {"gpus": 0, "cpus": 0, "memory": 0},
        {"gpus": 1, "cpus": 0, "memory": 0},
    ]
    assert {tuple(new.waits) for new in made} == {()}


def test_batch_is_told_of_with_all_capabilities_that_a_task_of_it_needs(
    store: DirectoryStore,
) -> None:
    named = [("b", "c"), ("a", "b"), None, ()]
    terms = [None if each is None else TaskOptions(needs=each) for each in named]
    job = make_job(*(Task("x", f"t{n}", options=each) for n, each in enumerate(terms)))
    plan = build_plan(job, read(store), set())
    sizes = BatchSizes(range(4), [2, 2])
    built = [
        (new.capabilities, json.loads(content)["umpteen"]["extras"])
        for new, content in build_batches(plan, "/store", "/here", 1, {}, 0.0, sizes)
    ]
    assert built == [(("a", "b", "c"), {}), ((), {})]  # the runner is not told


def test_batch_is_told_of_with_what_all_its_tasks_need(store: DirectoryStore) -> None:
    job = make_job(*(Task("x", f"t{n}", options=TaskOptions(cpus=4)) for n in range(2)))
    ((new, _),) = build_batches(build_plan(job, read(store), set()), "/store", "/here", 1, {}, 0.0)
    assert new.needs == [0, 4, 0]


def test_batch_command_without_shell_is_quoted_for_others(store: DirectoryStore) -> None:
    plan = build_plan(make_job(Task(["echo", "a b", "$x"])), read(store), set())
    (batch,) = decode(plan)
    assert batch["runs"][0]["cmd"] == "echo 'a b' '$x'"
    assert batch["umpteen"]["extras"] == {"0": {"argv": ["echo", "a b", "$x"]}}


def test_batch_has_the_attempts_made_before_and_the_deadline(store: DirectoryStore) -> None:
    put_job(store, "a", "b", states="SF")
    plan = build_plan(make_job("a", "b", deadline_s=60.0), read(store), set())
    (batch,) = decode(plan, attempts={1: Past(4, "token", seconds=1.5)}, now_s=1000.0)
    assert batch["umpteen"]["attempts"] == {"0": [4, "token", [], 1.5]}
    assert batch["umpteen"]["deadline_s"] == 1060


def test_batch_has_attempts_of_those_of_its_tasks_that_ran(store: DirectoryStore) -> None:
    plan = build_plan(make_job("a", "b", "c"), read(store), set())
    past = {1: Past(2, "token", [{"task": 1, "attempt": 1}]), 7: Past(0, "")}  # type: ignore[typeddict-item]
    (batch,) = decode(plan, attempts=past)
    tried = [2, "token", [{"task": 1, "attempt": 1}], 0.0]
    assert batch["umpteen"]["attempts"] == {"1": tried}


def test_task_lines_name_what_the_job_has_no_more(store: DirectoryStore) -> None:
    put_job(store, "a", "b", "c", states="SSS")
    lines = b"".join(build_task_lines(build_plan(make_job("a", "b2"), read(store), set())))
    first, second = map(json.loads, lines.splitlines())
    assert (first["command"], first["index"]) == ("b2", 1)
    assert second == {"command": "", "index": 2, "dropped": True}


def test_task_lines_of_a_large_job_come_in_parts(store: DirectoryStore) -> None:
    job = make_job(*(f"echo {n}" for n in range(2500)))
    parts = list(build_task_lines(build_plan(job, read(store), set())))
    lines = [json.loads(line) for part in parts for line in part.splitlines()]
    assert [line["command"] for line in lines] == [f"echo {n}" for n in range(2500)]
    assert max(len(part.splitlines()) for part in parts) == 1000


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


@pytest.mark.parametrize(
    ("others", "priority", "is_said"), [(["a"], 1, True), (["a"], 0, False), ([], 1, False)]
)
def test_batch_of_tasks_that_wait_says_that_some_go_first(
    store: DirectoryStore, others: list[str], priority: int, *, is_said: bool
) -> None:
    options = TaskOptions(priority=priority)
    job = make_job("x", Task("x", "a", options=options), after("b", *others))
    (batch,) = own_part(build_plan(job, read(store), set()))
    assert batch.get("priorities") == (True if is_said else None)


def test_batches_name_those_they_wait_for(store: DirectoryStore) -> None:
    rest = [Task("x", f"t{n}") for n in range(LOCAL_BATCH_CAP)]
    job = make_job(Task("x", "prep"), *rest, after("last", "prep", "t0"), after("end", "last"))
    first, second = own_part(build_plan(job, read(store), set()), 7)
    assert (first["after"], first["barriers"], first["waits"]) == ([], [], [])
    assert (second["after"], second["waits"]) == ([-1, 0, link(LOCAL_BATCH_CAP + 1)], ["7"])
    assert second["barriers"] == [{"succeeded": "0-1"}]


def list_waits(plan: Plan, sizes: BatchSizes) -> list[tuple[list[int], list[str]]]:
    """`after` and `waits` of each batch of that size."""
    found = []
    for new, content in build_batches(plan, "/s", "/here", 1, {}, 0.0, sizes):
        own = json.loads(content)["umpteen"]
        assert new.waits == own["waits"]
        found.append((own["after"], own["waits"]))
    return found


def test_batch_waits_for_the_one_that_a_task_was_put_into(store: DirectoryStore) -> None:
    job = make_job(*(Task("x", f"t{n}") for n in range(3)), after("last", "t2"), after("end", "t*"))
    plan = build_plan(job, read(store), set())
    sizes = BatchSizes([2, 0, 1, 3, 4], [1, 1, 1, 1, 1])
    assert list_waits(plan, sizes)[3:] == [([link(2)], ["1"]), ([0], ["1", "2", "3"])]


def test_batch_names_those_that_it_waits_for_by_their_numbers(store: DirectoryStore) -> None:
    job = make_job(*(Task("x", f"t{n}") for n in range(11)), after("end", "t*"))
    plan = build_plan(job, read(store), set())
    waits = list_waits(plan, BatchSizes(range(12), [1] * 12))[-1]
    assert waits == ([0], [str(number) for number in range(1, 12)])


def test_batch_barrier_has_its_indices_in_order(store: DirectoryStore) -> None:
    put_named(store, Task("x", "a"), Task("x", "b"))
    job = make_job(Task("x", "b"), Task("x", "a"), after("end", "?"))
    (batch,) = own_part(build_plan(job, read(store), set()))
    assert batch["barriers"] == [{"succeeded": "0-1"}]


def test_batch_that_is_doomed_by_a_task_without_a_name_has_its_number(
    store: DirectoryStore,
) -> None:
    put_job(store, "a", "b", states="F-", source="digest", is_plain=True)
    job = make_job("a", "b", digest="digest", canary=1)
    (batch,) = own_part(build_plan(job, read(store), set(), "rest"))
    assert batch["barriers"] == [{"doomed": "after 0, which failed"}]


def test_batch_knows_what_a_task_waits_for_wherever_it_stands_in_the_job(
    store: DirectoryStore,
) -> None:
    put_named(store, *(Task("x", name) for name in "abc"))
    plan = build_plan(
        make_job(Task("x", "c"), after("a", "c"), after("b", "a")), read(store), set()
    )
    assert list(plan.indices) == [2, 0, 1]
    sizes = BatchSizes(range(3), [1, 1, 1])
    assert list_waits(plan, sizes) == [([link(2)], ["3"]), ([link(0)], ["1"]), ([], [])]


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


# --- what changes nothing that ran ------------------------------------------------------------


def test_task_lines_have_updates(store: DirectoryStore) -> None:
    put_named(store, Task("x", "a"), states="S")
    task = Task("x", "a", options=TaskOptions(retries=[Retry(["failed"], times=3)], memory=5))
    plan = build_plan(make_job(task), read(store), set())
    (line,) = b"".join(build_task_lines(plan)).splitlines()
    assert json.loads(line) == {
        "command": "x", "name": "a", "index": 0,
        "terms": {"retries": [{"when": ["failed"], "times": 3}], "memory": 5},
    }  # fmt: skip


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


@pytest.mark.parametrize(
    ("task", "extra"),
    [
        (Task("x", env={"A": "1"}), {"env": {"A": "1"}}),
        (Task("x", cwd="/there"), {"cwd": "/there"}),
        (Task("x", timeout_s=5.0), {"timeout_s": 5.0}),
        (Task("x", options=TaskOptions(cpus=2)), {"cpus": 2}),
        (Task("x", options=TaskOptions(priority=2, template=1)), None),
        (Task("x", output="/own"), None),
        (Task("x", results_dir="/own"), None),
        (Task(["x"]), {"argv": ["x"]}),
    ],
)
def test_batch_has_of_a_task_what_it_says(
    store: DirectoryStore, task: Task, extra: dict[str, Any] | None
) -> None:
    (batch,) = decode(build_plan(make_job(task, "y"), read(store), set()))
    assert batch["umpteen"]["extras"] == ({} if extra is None else {"0": extra})
    assert batch["umpteen"]["common"] == {}
    run = {"cmd": "x", "remote_output_path": task.output or "/store/0"}
    assert batch["runs"][0] == run | (
        {"local_results_dir": task.results_dir} if task.results_dir else {}
    )


def test_batch_of_one_task_has_nothing_in_common(store: DirectoryStore) -> None:
    (batch,) = own_part(build_plan(make_job(Task("x", timeout_s=5.0)), read(store), set()))
    assert (batch["common"], batch["extras"]) == ({}, {"0": {"timeout_s": 5.0}})


@pytest.mark.parametrize("count", [2, 3])
def test_batch_says_once_what_all_its_tasks_have(store: DirectoryStore, count: int) -> None:
    job = make_job(*(Task("x", f"t{n}", timeout_s=5.0) for n in range(count)))
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
