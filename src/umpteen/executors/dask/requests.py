"""What Dask is asked and what it answers, worked out without a scheduler."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from umpteen.errors import RUNNER_CRASHED
from umpteen.executors.base import BatchRequest, BatchState, SubmitRequest
from umpteen.executors.dask.connection import tell_error
from umpteen.executors.engine import Handle, build_order, read_answer
from umpteen.executors.own_runs import ExitStatus
from umpteen.executors.zipapp import build_carrier

__all__ = [
    "FORGOTTEN",
    "Key",
    "build_call",
    "build_key",
    "build_resources",
    "build_restriction",
    "build_wake_call",
    "count_cores",
    "count_places",
    "read_exit_status",
    "read_state",
    "tell_lack_of_workers",
]

Key = tuple[str, str, str]

_PREFIX = "umpteen"
_STATES = {
    "released": BatchState.QUEUED,
    "waiting": BatchState.QUEUED,
    "no-worker": BatchState.QUEUED,
    "queued": BatchState.QUEUED,
    "processing": BatchState.RUNNING,
    "memory": BatchState.ENDED,
    "erred": BatchState.ENDED,
    "forgotten": BatchState.ENDED,
    None: BatchState.ENDED,
}
# Of a key that was asked for after its task was forgotten: nothing will ever run it.
FORGOTTEN = ("released", None)

# --- builders ---------------------------------------------------------------------------------


def build_key(handle: Handle) -> Key:
    """Dask's name for a batch. A tuple, as of other keys it keeps the first part for ever."""
    return (_PREFIX, handle.mark, handle.batch)


def build_call(request: SubmitRequest, batch: BatchRequest) -> str:
    """The expression that a worker evaluates to run a batch."""
    cpus = count_cores(request.slots, batch.cpus)
    order = build_order(request, batch.batch, cpus=cpus, is_beside_others=True)
    return f"__import__({build_carrier().name!r}).run_batch({order!r})"


def build_wake_call(marks: Sequence[str]) -> str:
    """The expression that has the runners of these submissions on a worker look for the mark."""
    return f"__import__({build_carrier().name!r}).wake({list(marks)!r})"


def count_cores(slots: int, cpus: int) -> int:
    """How many of its worker's a batch takes; 0 for all, with as many as its machine has.

    One of so many slots has its worker for itself; else it runs one command at a time.
    """
    return 0 if slots > 1 else max(1, cpus)


def build_resources(wanted: Mapping[str, float], gpus: int) -> dict[str, float]:
    """What a worker must have declared to be given a batch."""
    return {**({"GPU": float(gpus)} if gpus else {}), **wanted}


def build_restriction(threads: Mapping[str, int], cores: int) -> dict[str, Any]:
    """Where a batch is to go: to workers that have the cores, as long as there are any."""
    wide = [address for address, count in threads.items() if count >= cores]
    is_all = len(wide) == len(threads)
    return {} if is_all or not wide else {"workers": wide, "allow_other_workers": True}


# --- parsers ----------------------------------------------------------------------------------


def read_state(state: str | None) -> BatchState:
    """How far a batch is, by what Dask calls the state of its task; None: it knows of none."""
    return _STATES.get(state, BatchState.UNKNOWN)


def read_exit_status(status: str, answer: Any) -> ExitStatus:
    """What the carrier answered, or Dask in its place. status: of Dask's future."""
    if status == "finished" and isinstance(answer, str):
        return read_answer(answer)
    if status == "error":
        return ExitStatus(RUNNER_CRASHED, f"Dask gave it up: {tell_error(answer[1])}")
    return ExitStatus(0)  # forgotten, as its end was before we asked, or cancelled


def count_places(threads: Iterable[int], slots: int, cpus: int) -> int:
    """How many batches may run at once on workers that have so many threads."""
    return sum(1 if slots else count // max(1, cpus) for count in threads)


def tell_lack_of_workers(count: int, wanted: Mapping[str, float]) -> str:
    """Why nothing runs, in words. count: of workers. wanted: what they must have declared."""
    if not count:
        return "the Dask cluster has no workers yet"
    if wanted:
        shown = ", ".join(f"{name}: {amount:g}" for name, amount in wanted.items())
        return f"no worker of the Dask cluster has free {shown}"
    workers = "only worker" if count == 1 else f"{count} workers"
    return f"the {workers} of the Dask cluster cannot take it yet"
