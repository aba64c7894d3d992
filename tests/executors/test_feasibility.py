"""What is refused before it is submitted."""

from __future__ import annotations

import pytest

from umpteen.errors import InputError
from umpteen.executors.engine import EngineExecutor
from umpteen.executors.feasibility import refuse_impossible
from umpteen.executors.local import LocalExecutor
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
