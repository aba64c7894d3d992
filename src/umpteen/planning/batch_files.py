"""Makes batch files and task lines of a plan. Pure: touches no file.

A batch file has the keys of `sc`, so that `sc batch` can run it, too. All that is umpteen's own is
under one more key, `umpteen`.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import msgspec

from umpteen.history.files import HandedBatch, TaskLine
from umpteen.job.dependencies import Barrier
from umpteen.job.spec import Task
from umpteen.model.batch import BarrierEntry, BatchFile, OwnPart, RunEntry, TaskExtra
from umpteen.model.command import shell_command
from umpteen.model.dependencies import FREE, OUTCOMES, link, meets
from umpteen.model.ranges import format_ranges
from umpteen.model.reasons import write_after
from umpteen.model.record import RecordLine
from umpteen.model.states import FORMAT_VERSION, IS_FINAL, STATES
from umpteen.planning.batching import BatchSizes, cut_evenly
from umpteen.planning.needs import find_memory, list_capabilities
from umpteen.planning.plan import Plan

__all__ = [
    "LOCAL_BATCH_CAP",
    "NEEDS",
    "NewBatch",
    "Past",
    "build_batches",
    "build_task_lines",
    "read_slurm",
]

LOCAL_BATCH_CAP = 5000
NEEDS = "gpus", "cpus", "memory"
_MEMORY = NEEDS.index("memory")
_LINES_AT_ONCE = 1000  # little enough that the encoder's memory is used again


class Past(msgspec.Struct, frozen=True, array_like=True):
    """What a batch file says of a task that ran before.

    attempt: the number of its newest attempt; 0 where it may have run, and nothing was recorded.
    token: the runner of that attempt. tries: the records of attempts after which a retry was still
    to follow. seconds: what the newest took, or ran for until it was ended.
    """

    attempt: int
    token: str
    tries: list[RecordLine] = []
    seconds: float = 0.0


class NewBatch(NamedTuple):
    """A batch that is made.

    handed: what the submission says of it. waits: the batches that it waits for. needs: the most
    that one of its tasks needs, of each of NEEDS in that order. slurm: what its tasks say to Slurm.
    capabilities: all that one of its tasks needs of its machine.
    """

    handed: HandedBatch
    waits: Sequence[str]
    needs: Sequence[int]
    slurm: Mapping[str, str] = {}
    capabilities: Sequence[str] = ()


class EncodedRun(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The same as a `RunEntry`, made and encoded in half the time; a test checks that they are
    alike.
    """

    cmd: str
    remote_output_path: str
    local_results_dir: str | None = None


def build_batches(
    plan: Plan,
    address: str,
    folder: str,
    first: int,
    attempts: Mapping[int, Past],
    now_s: float,
    cut: BatchSizes | None = None,
) -> Iterator[tuple[NewBatch, bytearray]]:
    """The new batches, numbered from `first`, each with the content of its file.

    The content of one is overwritten when the next is asked for. address: of the store, and
    folder: that the job was submitted from, as those who run it know them. attempts: of tasks that
    ran before. cut: which tasks go into which batch, where the batches are for an engine.
    """
    order, sizes, _ = cut or cut_evenly(plan.to_run, LOCAL_BATCH_CAP)
    ends = list(itertools.accumulate(sizes))
    links = _Links(plan, order, ends, first) if plan.graph else None
    encoded = bytearray()  # new memory for each would cost as much as the encoding
    for number, (end, size) in enumerate(zip(ends, sizes, strict=True), first):
        indices = order[end - size : end]
        content = _build_batch(plan, (address, folder), str(number), indices, attempts, now_s)
        own = content["umpteen"]
        if links:
            own["graph"] = True
            own["after"], own["barriers"], own["waits"] = links.describe(indices, str(number))
        _ENCODER.encode_into(content, encoded)
        told: list[Mapping[str, Any]] = [own["common"], *own["extras"].values()]
        needs = [max(extra.get(need, 0) for extra in told) for need in NEEDS]
        raised = (
            (
                find_memory(plan.by_index(i).options, attempts[i].tries)
                for i in indices
                if i in attempts
            )
            if attempts
            else ()
        )
        needs[_MEMORY] = max(needs[_MEMORY], *raised, 0)
        handed = HandedBatch(str(number), own["indices"])
        slurm = read_slurm(plan, indices)
        capabilities = list_capabilities(plan.list_tasks(indices))
        yield NewBatch(handed, own.get("waits", ()), needs, slurm, capabilities), encoded


def read_slurm(plan: Plan, indices: Sequence[int]) -> Mapping[str, str]:
    """What the tasks of a batch say to Slurm: all the same, where it is for Slurm."""
    options = plan.by_index(indices[0]).options
    return (options.slurm if options else None) or {}


def _build_batch(
    plan: Plan,
    places: tuple[str, str],
    batch: str,
    indices: Sequence[int],
    attempts: Mapping[int, Past],
    now_s: float,
) -> BatchFile:
    address, folder = places
    tasks = plan.list_tasks(indices)
    names = [task.name for task in tasks]
    if not any(names):
        names = list(map(str, indices))
    elif not all(names):
        names = [name or str(index) for name, index in zip(names, indices, strict=True)]
    runs, extras = _build_runs(tasks, names, address + "/")
    common: TaskExtra = {}
    if len(extras) == len(tasks) > 1 and all(extra == extras["0"] for extra in extras.values()):
        common, extras = extras["0"], {}
    settings = plan.job.settings
    own: OwnPart = {
        "version": FORMAT_VERSION,
        "job": plan.job.name,
        "batch": batch,
        "indices": format_ranges(indices),
        "names": names,
        "extras": extras,
        "common": common,
        "status_file": settings.status_file,
        "grace_s": settings.grace_s,
        "cwd": folder,
    }
    if attempts:
        own["attempts"] = {
            str(position): attempts[index]
            for position, index in enumerate(indices)
            if index in attempts
        }
    if plan.graph and any(t.options is not None and t.options.priority for t in tasks):
        own["priorities"] = True
    if settings.max_failures:
        own["max_failures"], own["fail_fast"] = settings.max_failures, settings.fail_fast
    if settings.live:
        own["live"] = True
    if settings.synced:
        own["synced"] = settings.synced
    if settings.deadline_s:
        own["deadline_s"] = now_s + settings.deadline_s
    return {
        "nprocs": settings.slots or 1,
        "remote_output_path": address,
        "runs": cast(list[RunEntry], runs),
        "umpteen": own,
    }


def _build_runs(
    tasks: Sequence[Task], names: list[str], prefix: str
) -> tuple[list[EncodedRun], dict[str, TaskExtra]]:
    """(the `runs` of a batch, what some of them have beside that by position)."""
    commands = [task.command for task in tasks if isinstance(task.command, str)]
    more = [
        t.env
        or t.cwd
        or t.timeout_s
        or t.output
        or t.results_dir
        or (t.options is not None and t.options.concern_runner)
        for t in tasks
    ]
    if len(commands) == len(tasks) and not any(more):
        # Nearly all jobs, and of a million tasks half the time of the other way.
        return list(map(EncodedRun, commands, map(prefix.__add__, names))), {}
    runs = [
        EncodedRun(shell_command(task.command), task.output or prefix + name, task.results_dir)
        for task, name in zip(tasks, names, strict=True)
    ]
    extras = {
        str(place): extra for place, task in enumerate(tasks) if (extra := _build_extra(task))
    }
    return runs, extras


def _build_extra(task: Task) -> TaskExtra:
    extra: dict[str, Any] = {}
    if not isinstance(task.command, str):
        extra["argv"] = task.command
    if task.env:
        extra["env"] = task.env
    if task.cwd is not None:
        extra["cwd"] = task.cwd
    if task.timeout_s is not None:
        extra["timeout_s"] = task.timeout_s
    if task.options is not None and task.options.concern_runner:
        for field in ("retries", "cpus", "memory", "gpus", "expect", "output_limit"):
            if value := getattr(task.options, field):
                extra[field] = value
    return cast(TaskExtra, extra)


class _Links:
    """What batches say of tasks that wait for others."""

    def __init__(self, plan: Plan, order: Sequence[int], ends: Sequence[int], first: int) -> None:
        assert plan.graph is not None
        self.plan, self.graph, self.earlier = plan, plan.graph, plan.earlier
        self.ends = ends
        self.indices = plan.indices
        # By index, its place in what runs and in the job: for a new job no table is needed.
        is_new = isinstance(order, range) and isinstance(plan.indices, range)
        places = ((index, place) for place, index in enumerate(order))
        positions = ((index, position) for position, index in enumerate(plan.indices))
        self.place: Sequence[int] | dict[int, int] = order if is_new else dict(places)
        self.position: Sequence[int] | dict[int, int] = plan.indices if is_new else dict(positions)
        self.first = first
        self.made: dict[int, tuple[dict[str, str], set[str]]] = {}

    def describe(
        self, indices: Sequence[int], batch: str
    ) -> tuple[list[int], list[BarrierEntry], list[str]]:
        """(`after`, `barriers`, the batches that are waited for) of these tasks: as in Graph, but
        with indices.
        """
        numbers: dict[int, int] = {}
        after: list[int] = []
        waits: set[str] = set()
        here = indices if isinstance(indices, range) else frozenset(indices)
        for index in indices:
            behind = self.graph.behind[self.position[index]]
            if behind < FREE and (before := self.indices[link(behind)]) in here:
                after.append(link(before))
            elif behind < FREE and not self._is_over(before):
                after.append(link(before))
                waits.add(self._find_batch(before))
            elif behind != FREE and self._build(behind)[0]:
                after.append(numbers.setdefault(behind, len(numbers)))
            else:
                after.append(FREE)
        waits.update(other for barrier in numbers for other in self.made[barrier][1])
        return (
            after if after.count(FREE) < len(after) else [],
            [self.made[barrier][0] for barrier in numbers],
            sorted(waits - {batch}, key=int),
        )

    def _build(self, number: int) -> tuple[dict[str, str], set[str]]:
        """(what is still to come of a barrier, empty for nothing; the batches of those tasks)."""
        if number in self.made:
            return self.made[number]
        barrier = self.graph.barriers[number] if number >= 0 else Barrier([link(number)], [], [])
        given: dict[str, str] = {}
        batches: set[str] = set()
        for outcome in OUTCOMES:
            left = []
            for position in getattr(barrier, outcome):
                index = self.plan.indices[position]
                if self._is_over(index):
                    if not meets(outcome, STATES[self.earlier.states[index]]):
                        given["doomed"] = self._explain(position, index)
                    continue
                left.append(index)
                batches.add(self._find_batch(index))
            if left:
                given[outcome] = format_ranges(sorted(left))
        self.made[number] = (
            ({"doomed": given["doomed"]}, set()) if "doomed" in given else (given, batches)
        )
        return self.made[number]

    def _is_over(self, index: int) -> bool:
        if index in self.place or index >= len(self.earlier.states):
            return False
        return IS_FINAL[self.earlier.states[index]]

    def _find_batch(self, index: int) -> str:
        if index in self.place:
            return str(self.first + bisect.bisect_right(self.ends, self.place[index]))
        return self.earlier.batches[self.earlier.batch_of[index]]

    def _explain(self, position: int, index: int) -> str:
        task = self.plan.by_index(index)
        state = STATES[self.earlier.states[index]]
        return write_after(task.name or str(position), state)


def build_task_lines(plan: Plan) -> Iterator[bytes]:
    """`tasks/K.jsonl` in parts: what the submission adds, changes and drops."""
    for start in range(0, len(plan.added), _LINES_AT_ONCE):
        yield _ENCODER.encode_lines(plan.added[start : start + _LINES_AT_ONCE])
    renewed = [*plan.changes, *plan.updates]
    changed = [
        TaskLine(**msgspec.structs.asdict(change.now), index=change.index) for change in renewed
    ]
    gone = [TaskLine(command="", index=index, dropped=True) for index in plan.dropped]
    yield _ENCODER.encode_lines([*changed, *gone])


_ENCODER = msgspec.json.Encoder()
