"""What is refused before it is submitted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from umpteen.errors import InputError, SettingsError
from umpteen.executors.base import Lack, TaskNeeds
from umpteen.executors.engine import EngineExecutor
from umpteen.executors.feasibility import refuse_impossible, refuse_lacking
from umpteen.executors.local import LocalExecutor
from umpteen.executors.slurm.executor import SlurmExecutor
from umpteen.job.spec import Task, TaskOptions


def make_tasks(*cpus: int) -> list[Task]:
    options = [TaskOptions(cpus=count) if count else None for count in cpus]
    return [Task("true", f"t{number}", options=each) for number, each in enumerate(options)]


def test_task_that_this_machine_is_too_small_for_is_named() -> None:
    with pytest.raises(InputError, match=r"task 't2' needs 100000 cpus; this machine has \d+"):
        refuse_impossible(LocalExecutor({}), enumerate(make_tasks(1, 0, 100_000)), 1)


def test_memory_and_gpus_are_told_in_their_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMPTEEN_GPUS", "2")
    for options, said in (
        (TaskOptions(memory=1 << 60), r"needs \d+ MB of memory; this machine has \d+"),
        (TaskOptions(gpus=3), "needs 3 gpus; this machine has 2"),
    ):
        with pytest.raises(InputError, match=said):
            refuse_impossible(LocalExecutor({}), [(7, Task("true", options=options))], 1)


def test_what_says_nothing_is_possible() -> None:
    refuse_impossible(LocalExecutor({}), enumerate(make_tasks(0, 0)), 1)


class Engine(EngineExecutor):
    """Workers of two cores; counts how often it was asked."""

    name = "engine"
    option_names = ()
    asked = 0
    submit = poll = wake = None  # type: ignore[assignment]

    def count_cores(self, _: int) -> int:
        self.asked += 1
        return 2

    def hint_cores(self, _: int, cpus: int) -> str:
        return f"have {cpus}"


def test_engine_names_the_first_of_the_widest_tasks() -> None:
    with pytest.raises(InputError) as caught:
        refuse_impossible(Engine({}), reversed(list(enumerate(make_tasks(1, 4, 3, 4)))), 0)
    assert str(caught.value).startswith("task 't1' needs 4 cpus; a worker of engine has at most 2")
    assert caught.value.hint == "have 4, or write --cpus 2 for all tasks"


def test_engine_is_not_asked_where_every_task_takes_one_core() -> None:
    engine = Engine({})
    refuse_impossible(engine, enumerate(make_tasks(1, 0)), 0)
    assert engine.asked == 0


# --- capabilities -----------------------------------------------------------------------------


def needing(*names: str, **more: Any) -> Task:
    return Task("true", "t", options=TaskOptions(needs=names, **more))


@pytest.mark.parametrize(
    ("executor", "hint"),
    [
        (LocalExecutor({}), "executor: {local: {capabilities: [a, b]}} says what this machine has"),
        (SlurmExecutor({}), "write slurm: {constraint: a&b} in its place, by features of nodes"),
        (Engine({}), "leave 'needs' out, or use an executor that knows what machines have: ssh"),
    ],
)
def test_capabilities_are_refused_where_nobody_knows_of_any(
    executor: LocalExecutor | SlurmExecutor | Engine, hint: str
) -> None:
    tasks = [Task("true"), needing("a", "b"), needing("c")]
    with pytest.raises(InputError) as caught:
        refuse_lacking(executor, enumerate(tasks), 1)
    assert caught.value.message == (
        f"task 't' needs 'a' and 'b'; the executor '{executor.name}' does not know what machines "
        "have"
    )
    assert caught.value.hint == hint
    refuse_lacking(executor, enumerate([*tasks[:1], *make_tasks(100_000)]), 1)  # none is needed


def test_capability_that_this_machine_has_not_is_named() -> None:
    executor = LocalExecutor({"capabilities": ["b", "a"]})
    refuse_lacking(executor, enumerate([needing("a", "b"), needing("b")]), 1)
    with pytest.raises(InputError) as caught:
        refuse_lacking(
            executor, [(3, needing("a")), (5, Task("x", options=TaskOptions(needs=("c",))))], 1
        )
    assert caught.value.message == "task '5' needs 'c'; this machine is said to have 'b' and 'a'"
    assert caught.value.hint == (
        "executor: {local: {capabilities: [a, b, c]}} says what this machine has"
    )


def test_machine_that_is_said_to_have_nothing_has_no_capability() -> None:
    with pytest.raises(InputError, match="needs 'a'; this machine is said to have none"):
        refuse_lacking(LocalExecutor({"capabilities": []}), [(0, needing("a"))], 1)


@pytest.mark.parametrize("given", [5, {"a": 1}, ["a", 3], ["a b"], "-a", [["a"]]])
def test_capabilities_of_this_machine_must_be_names(given: object) -> None:
    with pytest.raises(SettingsError, match="'capabilities' of the executor 'local' must be"):
        LocalExecutor({"capabilities": given})


def test_capability_of_this_machine_may_be_given_as_one_name() -> None:
    assert LocalExecutor({"capabilities": "gpu"}).capabilities == ("gpu",)
    assert LocalExecutor({"capabilities": None}).capabilities == ()


class Hosts(Engine):
    """Knows what its machines have, and has none with all that is asked for."""

    abilities = Engine.abilities._replace(capabilities=True)

    def __init__(self) -> None:
        super().__init__({})
        self.wanted: list[TaskNeeds] = []

    def lacks(self, tasks: Sequence[TaskNeeds], slots: int) -> Lack | None:
        self.wanted += tasks
        return Lack(len(tasks) - 1, 0, "b", f"no host with {slots} slots has it", "add one")


def test_executor_is_asked_for_capabilities_together_with_sizes() -> None:
    hosts = Hosts()
    with pytest.raises(InputError) as caught:
        refuse_lacking(hosts, enumerate([*make_tasks(4), needing("a"), needing("b", cpus=8)]), 2)
    assert str(caught.value).startswith("task 't' needs 'b'; no host with 2 slots has it")
    assert hosts.wanted == [TaskNeeds(capabilities=("a",)), TaskNeeds(8, capabilities=("b",))]


def test_sizes_are_looked_at_without_capabilities_as_their_task_may_not_run() -> None:
    executor = LocalExecutor({"capabilities": []})
    refuse_impossible(executor, [(0, needing("a", cpus=1))], 1)
    with pytest.raises(InputError, match="task 't' needs 100000 cpus; this machine has"):
        refuse_impossible(executor, [(0, needing("a", cpus=100_000))], 1)
