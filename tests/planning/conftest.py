"""Jobs, what a store has of them, and plans of both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.support.store import put_hand_in, put_start
from umpteen.history.history import History
from umpteen.job.settings import Setting, merge_settings
from umpteen.job.spec import Job, Task, TaskOptions
from umpteen.planning import plan as planning
from umpteen.planning.batch_files import build_batches
from umpteen.planning.choosing import Chosen
from umpteen.planning.known import read_known
from umpteen.planning.plan import Plan
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


def put_again(store: DirectoryStore, number: int, index: int, state: str, **more: Any) -> None:
    """One more hand-in, which has one task run again."""
    put_hand_in(store, number, [], {str(number): str(index)}, **more)
    if state:
        record = {"task": index, "digest": "", "attempt": number, "state": state}
        put_start(store, str(number), [record, {"event": "end", "left": 0, "states": {}}])


def after(name: str, *others: str, outcome: str = "succeeded", command: str = "x") -> Task:
    return Task(command, name, options=TaskOptions(after=[(other, outcome) for other in others]))


def only(*names: str) -> Chosen:
    return lambda _, task: task.name in names


def decode(plan: Plan, first: int = 1, **more: Any) -> list[dict[str, Any]]:
    attempts, now_s = more.get("attempts", {}), more.get("now_s", 0.0)
    return [
        json.loads(content)
        for _, content in build_batches(plan, "/store", "/here", first, attempts, now_s)
    ]


def own_part(plan: Plan, first: int = 1) -> list[dict[str, Any]]:
    return [batch["umpteen"] for batch in decode(plan, first)]


def names_of(plan: Plan) -> list[str]:
    return [plan.by_index(index).name or str(index) for index in plan.to_run]


def name_behind(plan: Plan) -> dict[str, str]:
    return {plan.by_index(i).name: plan.by_index(o).name for i, o in plan.behind.items()}


CHAIN = [Task("x", "prep"), after("mid", "prep"), after("end", "mid"), Task("x", "other")]


STEPS = [Task("x", "a1"), Task("x", "a2"), after("b1", "a1"), after("last", "b*", "a2")]
