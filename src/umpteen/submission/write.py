"""A plan becomes files of the store, and batches that an executor has.

One process at a time, see `submission_lock`. The order of the writes is what lets the next one
repair a submission that was killed; where two submit all the same, one of them fails. Nothing
that somebody else put is removed or replaced before `handed/N.json` is there; from then on the
tasks and options of that number are ours.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from umpteen.errors import StoreError
from umpteen.executors.base import (
    BatchRequest,
    Executor,
    OnProgress,
    SubmitRequest,
    ignore_progress,
)
from umpteen.history.files import HandedBatch, Submission
from umpteen.history.history import History
from umpteen.model.ranges import format_ranges
from umpteen.planning.batch_files import (
    NEEDS,
    NewBatch,
    Past,
    build_batches,
    build_task_lines,
    read_slurm,
)
from umpteen.planning.batching import BatchSizes
from umpteen.planning.needs import find_memory, list_capabilities
from umpteen.planning.plan import Plan, build_settings
from umpteen.store.address import OPTIONS_VARIABLE, is_remote, read_options
from umpteen.store.base import Content, Store
from umpteen.store.job_files import close_batch, list_batch_numbers
from umpteen.store.layout import batch_key, handed_key, handles_key, options_key, tasks_key
from umpteen.store.submission_lock import OwnFiles, SubmissionLock
from umpteen.submission.plan import list_open_tries
from umpteen.submission.stored_options import leave_out_secrets
from umpteen.system.background import BackgroundCall

__all__ = ["build_request", "list_again", "number_next", "submit_plan"]

_AGAIN = "run the same command again"


def submit_plan(
    plan: Plan,
    history: History,
    executor: Executor,
    past: Mapping[int, Past],
    lock: SubmissionLock,
    sizes: BatchSizes | None = None,
    on_progress: OnProgress = ignore_progress,
) -> list[str]:
    """Write the plan into the store and submit its batches; their numbers.

    past: what tasks that run again have behind them. sizes: what each batch takes, where that
    is not for this machine. `history` was read with the lock held. Raises StoreError, and
    submits nothing, where somebody else has submitted all the same.
    """
    store = history.store
    number = len(history.hand_ins) + 1
    lock.check()
    if store.read(handed_key(number), 0, 0) is not None:
        raise _taken(store, handed_key(number))
    for name in plan.closed:
        close_batch(store, name)
    first = number_next(store)
    made = list_again(plan, history)
    site, now_s = executor.find_site(store.address), time.time()
    folder = plan.job.settings.submitted_from if site.is_here else ""
    mark = os.urandom(6).hex()
    files = OwnFiles(store, mark)
    with _tasks_put_beside(files, number, plan):
        for new, content in build_batches(plan, site.results, folder, first, past, now_s, sizes):
            _create(store, batch_key(new.handed.batch), content)
            made.append(new)
    lock.check()
    options, left_out = leave_out_secrets(store, plan.job.settings.executor_options)
    if options:
        files.put(functools.partial(options_key, number), lambda: msgspec.json.encode(options))
    workers = sizes.workers if sizes else 0
    handed = [new.handed for new in made]
    described = _describe(plan, history, workers, handed, files, left_out)
    try:
        _create(store, handed_key(number), msgspec.json.encode(described))
    except StoreError:
        files.take_back()
        raise
    files.put_as_before()
    if made:
        handles = executor.submit(build_request(plan, history, mark, made), on_progress)
        store.create(handles_key(number), msgspec.json.encode(handles))
    return [new.handed.batch for new in made]


def number_next(store: Store) -> int:
    """The number of the next batch."""
    numbers = list_batch_numbers(store)
    return numbers[-1] + 1 if numbers else 1


def list_again(plan: Plan, history: History) -> list[NewBatch]:
    """The batches that are there, and are submitted once more."""
    again = [HandedBatch(name, _ranges(history, name)) for name in plan.again]
    lost = [history.batches[name] for name in plan.again]
    unfinished = map(history.unfinished, lost)  # of its others some may be gone from the job
    return [
        NewBatch(
            handed,
            (),
            _list_needs(plan, history, indices),
            read_slurm(plan, indices),
            list_capabilities(plan.list_tasks(indices)),
        )
        for handed, indices in zip(again, unfinished, strict=True)
    ]


def build_request(
    plan: Plan, history: History, mark: str, made: Sequence[NewBatch]
) -> SubmitRequest:
    """What the executor is given. mark: a word that no other submission has."""
    settings = plan.job.settings
    # Workers have not the environment of who submits.
    options = settings.results_options or (read_options() if is_remote(settings.address) else {})
    own = {new.handed.batch for new in made}
    waits = {batch for new in made for batch in new.waits} - own
    earlier = {batch: history.batches[batch].handle for batch in waits}
    earlier = {batch: handle for batch, handle in earlier.items() if handle}
    requests = [
        BatchRequest(
            new.handed.batch,
            [b for b in new.waits if b in own or b in earlier],
            **dict(zip(NEEDS, new.needs, strict=True)),
            options=new.slurm,
            capabilities=new.capabilities,
        )
        for new in made
    ]
    environment = {OPTIONS_VARIABLE: json.dumps(options)} if options else {}
    return SubmitRequest(history.identity, requests, settings.slots, mark, earlier, environment)


def _list_needs(plan: Plan, history: History, indices: Sequence[int]) -> list[int]:
    """The most that one of these tasks needs: of GPUs, cores and memory, as `NEEDS` has them."""
    options = {i: each for i in indices if (each := plan.by_index(i).options) is not None}
    retried = [index for index, each in options.items() if each.retries]
    tried = history.read_records(retried) if retried else {}
    memory = (find_memory(options[i], list_open_tries(found)) for i, found in tried.items())
    found = {
        need: max((getattr(each, need) or 0 for each in options.values()), default=0)
        for need in NEEDS
    }
    return [*{**found, "memory": max(found["memory"], *memory, 0)}.values()]


@contextlib.contextmanager
def _tasks_put_beside(files: OwnFiles, number: int, plan: Plan) -> Iterator[None]:
    """Have `tasks/K.jsonl` written while the caller does other things; it is there at the end."""
    if not (plan.added or plan.changes or plan.updates or plan.dropped):  # what is restored, too
        yield
        return
    name = functools.partial(tasks_key, number)
    writing = BackgroundCall(lambda: files.put(name, lambda: build_task_lines(plan)))
    try:
        yield
    finally:
        writing.join()
    writing.take()


def _create(store: Store, key: str, content: Content) -> None:
    if not store.create(key, content):
        raise _taken(store, key)


def _taken(store: Store, key: str) -> StoreError:
    path = store.path(key)
    return StoreError(f"{path} was written by somebody else at the same time", _AGAIN, path=path)


def _ranges(history: History, batch: str) -> str:
    parts = history.batches[batch].indices
    return ",".join(f"{p.start}-{p.stop - 1}" if len(p) > 1 else str(p.start) for p in parts)


def _describe(
    plan: Plan,
    history: History,
    workers: int,
    handed: list[HandedBatch],
    files: OwnFiles,
    left_out: list[str],
) -> Submission:
    return Submission(
        hand_in=len(history.hand_ins) + 1,
        time=round(time.time(), 3),
        executor=plan.job.settings.executor,
        workers=workers,
        graph=plan.graph is not None,
        leaves_behind=bool(plan.left_behind),
        mark=files.mark,
        segment=files.segment,
        left_out=left_out,
        tasks=len(plan.added),
        batches=handed,
        changed=format_ranges(sorted(change.index for change in plan.changes)),
        dropped=format_ranges(plan.dropped),
        restored=format_ranges(sorted(plan.restored)),
        source=plan.job.source_digest,
        is_plain=plan.is_plain,
        place=history.place,
        settings=build_settings(plan.job),
    )
