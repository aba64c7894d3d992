"""Finds jobs and tasks by what people call them, and tells what is known of them now.

What the verbs share that only look: a store's history, how its job stands, the facts of its
tasks, and where their outputs are.
"""

from __future__ import annotations

import collections
import contextlib
import difflib
import fnmatch
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from umpteen.errors import InputError, SettingsError, StoreError, UmpteenError
from umpteen.executors.base import ENDED, LOCAL, UNKNOWN
from umpteen.executors.registry import find_short_name, is_short_name, open_executor
from umpteen.history.history import BatchHistory, History
from umpteen.job.spec import Task
from umpteen.model.record import Record
from umpteen.model.states import STATES
from umpteen.registry import find_address, register, was_handed_in
from umpteen.status import JobStatus, build_status, list_living
from umpteen.store.address import find_output, is_remote, open_store, parse_address
from umpteen.store.base import Store
from umpteen.store.layout import attempt_folder
from umpteen.verify import verify

__all__ = [
    "Liveness",
    "NotOpenedError",
    "Outputs",
    "UNKNOWN_S",
    "find_names",
    "find_outputs",
    "find_stranger",
    "find_task",
    "list_handles",
    "open_history",
    "open_output",
    "read_facts",
    "read_gone",
    "read_status",
]

UNKNOWN_S = 60.0  # by when what does not change is taken to be dead


def open_history(name: str) -> History:
    """What the store of a job knows, the job given by its name or its address.

    Raises InputError where there is no such job.
    """
    address = find_address(name)
    history = History(open_store(address))
    history.refresh()
    register(history.job.get("name", name), address)
    return history


def read_gone(history: History) -> list[str]:
    """The names of tasks that are done, as recorded, but whose outputs are not as they were left.

    From now on they count in `history` for what is there.
    """
    tasks = history.read_tasks()
    for task in tasks:
        if task.output:
            _check_output(history, task.output, task.name)
    lost = verify(history, Liveness().list_living(history), tasks)
    return [tasks[index].name for index in sorted(lost)]


def read_status(history: History, *, by_path: bool = False) -> JobStatus:
    """How the job stands now. by_path: as of `list_handles`."""
    liveness = Liveness(by_path=by_path)
    living = liveness.list_living(history)
    status = build_status(history, living)
    if living and living <= liveness.seen.keys():  # and one look does not tell
        trouble = status.trouble or liveness.reason
        return msgspec.structs.replace(status, state="unknown", trouble=trouble)
    if living and not (status.running or status.trouble):
        return msgspec.structs.replace(status, trouble=_explain(history, living))
    return status


def _explain(history: History, living: set[str]) -> str:
    """Why nothing runs, where an executor knows."""
    options = dict(history.read_settings().get("executor_options") or {})
    options.pop("worker_timeout", None)  # which is for those to keep who wait
    batches = map(history.batches.__getitem__, living)
    for name, handles in list_handles(history, batches).items():
        with contextlib.suppress(UmpteenError):
            if name != LOCAL and (reason := open_executor(name, options).explain(handles)):
                return reason
    return ""


def list_handles(
    history: History, batches: Iterable[BatchHistory], *, by_path: bool = False
) -> dict[str, list[str]]:
    """What may be asked after, by the executor to be asked: theirs, and the runners' own.

    by_path: whether executors may be loaded that are none of ours, as verbs that only look never
    do.
    """
    handles: dict[str, list[str]] = collections.defaultdict(list)
    unasked: dict[tuple[str, int], str] = {}  # thousands of batches may be of one hand-in
    for batch in batches:
        hand_in = batch.executor, batch.hand_in
        if batch.handle and hand_in not in unasked:
            unasked[hand_in] = tell_unasked(history, batch, by_path=by_path)
        if batch.handle and not unasked[hand_in]:
            handles[batch.executor or LOCAL].append(batch.handle)
        if batch.lease:
            handles[LOCAL].append(batch.lease)
    return handles


def tell_unasked(history: History, batch: BatchHistory, *, by_path: bool = False) -> str:
    """Why the executor that has a batch is not asked after it; empty where it may be.

    Whoever writes to a store could else have us speak to anybody, and load anything.
    """
    name = find_short_name(batch.executor or LOCAL)
    if name == LOCAL:
        return ""
    if not (by_path or is_short_name(name)):
        return f"the executor {name!r} is loaded by run, collect, retry and cancel alone"
    if found := find_stranger(history, batch.hand_in):
        return (
            f"{found} may be somebody else's, so that what it names ({name}) is not asked; "
            "umpteen collect FILE, with the job's file, does so"
        )
    return ""


def find_stranger(history: History, hand_in: int | None = None) -> str:
    """What of a hand-in (of any, where none is given) somebody else may have written; else empty.

    In a folder each file tells whose it is. Elsewhere a job is this user's who handed it in from
    this machine.
    """
    if is_remote(history.store.address):
        return "" if was_handed_in(history.store.address) else history.store.address
    if hand_in is not None:
        return history.strange.get(hand_in, "")
    return next(iter(history.strange.values()), "")


class Liveness:
    """Which batches somebody is at: what the executors say, asked once for all.

    Where they cannot know (another machine's runner), a batch lives until its files have not
    changed for 60 s by our clock; its runner replaces one every 15 s. by_path: as of
    `list_handles`. reason: why an executor was not asked.
    """

    def __init__(self, *, by_path: bool = False) -> None:
        self.by_path, self.reason = by_path, ""
        self.seen: dict[str, tuple[Any, float]] = {}

    def list_living(self, history: History) -> set[str]:
        """The batches that somebody is at, or may be."""
        open_batches = history.list_open()
        polled: dict[str, str] = {}
        for name, asked in list_handles(history, open_batches, by_path=self.by_path).items():
            polled.update(open_executor(name, {}).poll(asked))
        unpolled = [b for b in open_batches if b.handle and b.handle not in polled]
        polled.update((batch.handle, UNKNOWN) for batch in unpolled)
        if unpolled:
            self.reason = tell_unasked(history, unpolled[-1], by_path=self.by_path)
        living = list_living(history, polled)
        for batch in open_batches:
            told = polled.get(batch.lease, ENDED), polled.get(batch.handle, ENDED)
            # What an engine says of a batch counts more than that we cannot see its runner.
            is_told = batch.handle and batch.executor != LOCAL and told[1] != UNKNOWN
            is_unknown = not is_told and UNKNOWN in told
            if is_unknown and batch.batch not in living and self._has_changed(history, batch):
                living.add(batch.batch)
        return living

    def _has_changed(self, history: History, batch: BatchHistory) -> bool:
        if not history.unfinished(batch):
            return False
        found = (history.list_running(batch), [start.offset for start in batch.starts])
        before, since_s = self.seen.get(batch.batch, (None, 0.0))
        now = time.monotonic()
        if found != before:
            self.seen[batch.batch] = (found, now)
            return True
        return now - since_s < UNKNOWN_S


def read_facts(history: History) -> list[dict[str, Any]]:
    """What is known of each task that counts, for expressions and tables.

    name, index, state, tags, parameters; of its newest attempt (None or 0 where there is none)
    attempt, exit_code, signal, reason, seconds, cpu_s, peak_mb, start_s, end_s, stdout_bytes,
    stderr_bytes, and `record` and `token` themselves.
    """
    newest = history.read_newest()
    running = {task.index for task in read_status(history).running}
    facts = []
    for index, task in enumerate(history.read_tasks()):
        if index in history.dropped:
            continue
        token, record = newest.get(index, ("", None))
        shown = record or Record(index, "", 0, "")
        facts.append(
            {
                "name": task.name,
                "index": index,
                "state": "running" if index in running else STATES[history.states[index]],
                "tags": task.tags or [],
                "parameters": task.parameters or {},
                "attempt": shown.attempt,
                "exit_code": shown.exit_code,
                "signal": shown.signal,
                "reason": shown.reason,
                "seconds": shown.seconds,
                "cpu_s": shown.cpu_s,
                "peak_mb": round(shown.peak_kb / 1024, 1),
                "start_s": shown.start_s,
                "end_s": shown.end_s,
                "stdout_bytes": shown.stdout_bytes,
                "stderr_bytes": shown.stderr_bytes,
                "record": record,
                "token": token,
                "task": task,
            }
        )
    return facts


def find_task(history: History, wanted: str) -> tuple[int, Task]:
    """A task by its name, else by its index. Raises InputError where there is none such."""
    tasks = history.read_tasks()
    for index, task in enumerate(tasks):
        if task.name == wanted:
            return index, task
    if wanted.isdecimal() and int(wanted) < len(tasks):
        return int(wanted), tasks[int(wanted)]
    raise InputError(
        f"no task {wanted!r} in {history.job.get('name')!r}",
        _hint_task(wanted, [t for i, t in enumerate(tasks) if i not in history.dropped]),
    )


def _hint_task(wanted: str, tasks: Sequence[Task]) -> str:
    if not tasks:
        return "it has no tasks"
    names = [task.name for task in tasks[:20000]]
    near = difflib.get_close_matches(wanted, names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"its tasks are {names[0]} to {names[-1]}"


class Outputs(NamedTuple):
    """Where one attempt of a task left what it wrote: a store, and the folder in it."""

    store: Store
    folder: str

    @property
    def address(self) -> str:
        """The folder, or address."""
        return self.store.path(self.folder)

    def key(self, name: str) -> str:
        """Of one of its files, in its store."""
        return f"{self.folder}/{name}"


def find_outputs(
    history: History, task: Task, token: str, record: Record | None, *, is_newest: bool = False
) -> Outputs:
    """Where the outputs of an attempt are: what was set aside since is below `attempts/`.

    is_newest: whether there is no later attempt, so that an object store need not be asked.
    """
    store, base = _find_output(history, task)
    if record is None:
        return Outputs(store, base)
    is_far = is_remote(store.address)
    if is_far and is_newest and not record.outputs:
        return Outputs(store, base)
    for below in (record.outputs, attempt_folder(record.attempt, token)):
        with contextlib.suppress(StoreError):  # what is no folder has no outputs
            if below and store.list(f"{base}/{below}"):
                return Outputs(store, f"{base}/{below}")
    return Outputs(store, base)


def _find_output(history: History, task: Task) -> tuple[Store, str]:
    if not task.output:
        return history.store, task.name
    return open_output(history, task.output, task.name)


def open_output(history: History, output: str, name: str) -> tuple[Store, str]:
    """The store that has the outputs of a task, given their address, and their folder in it.

    name: the task's. Raises NotOpenedError for a place elsewhere that somebody else may have named.
    """
    _check_output(history, output, name)
    return find_output(history.store, output)


class NotOpenedError(StoreError):
    """Outputs are said to be at a place that is not asked, as somebody else may have named it."""


def _check_output(history: History, output: str, name: str) -> None:
    """Raises NotOpenedError for a place elsewhere that somebody else may have named."""
    own = history.store.address
    try:
        address = parse_address(output)
        is_near = address.startswith(f"{own}/") or not (is_remote(own) or is_remote(address))
    except SettingsError:  # nothing can be kept there, whoever says so
        address, is_near = output, False
    if not is_near and (found := find_stranger(history)):
        raise NotOpenedError(
            f"the outputs of {name} are at {address}, which is not opened: "
            f"{found} may be somebody else's",
            "look there by other means, if you trust who says so",
        )


def find_names(history: History, names: Sequence[str], tasks: Sequence[str]) -> Iterator[str]:
    """Of the tasks given by name, pattern or index. Raises InputError for one that is not there."""
    known = set(names)
    for given in tasks:
        if given in known:
            yield given
        elif found := fnmatch.filter(names, given):
            yield from found
        else:
            name = find_task(history, given)[1].name
            if name not in known:
                raise InputError(f"{name!r} is not in the job any more")
            yield name
