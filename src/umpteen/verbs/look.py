"""One look at a job that is watched, also where its store does not answer for a while."""

from __future__ import annotations

import time
from collections.abc import Generator

import msgspec

from umpteen.errors import StoreError
from umpteen.query.status import JobStatus, build_status
from umpteen.store.address import read_patience
from umpteen.system.background import BackgroundCall
from umpteen.verbs.handle import JobHandle

__all__ = ["look"]

_SILENT_S, _GLANCE_S = 5.0, 0.5  # after how long it is shown, and how often it is looked after

_Found = tuple[JobStatus, set[str]]


def look(handle: JobHandle, before: JobStatus) -> Generator[JobStatus, None, _Found | None]:
    """How the job stands, and which batches somebody runs. Until that is known it yields `before`,
    with what is wrong.

    A runner of our own decides itself when to give up on the store: None where it has. Raises
    StoreError where the store does not answer for too long, and there is no such runner.
    """
    began_s = time.monotonic()
    looking = _begin(handle)
    trouble = ""
    error = StoreError("the results store does not answer", "run the same command again")
    while True:
        is_over = looking.is_over(_GLANCE_S)
        silent_s = time.monotonic() - began_s
        if is_over:
            try:
                return looking.take()
            except StoreError as refused:
                error, trouble = refused, f"the results store cannot be read: {refused}"
        elif silent_s >= _SILENT_S:
            shown_s = silent_s // _SILENT_S * _SILENT_S
            trouble = trouble or f"the results store has not answered for {shown_s:.0f} s"
        if not _has_runner(handle):
            ended = handle.executor.own_runs.exit_status()
            if handle.is_interrupted or (ended and ended.code):
                return None
            if silent_s > read_patience() or (is_over and not error.transient):
                raise error
        with handle.looking():
            yield msgspec.structs.replace(before, trouble=trouble or before.trouble)
        if is_over:
            handle.executor.own_runs.wait(handle.poll_s)
            looking = _begin(handle)


def _begin(handle: JobHandle) -> BackgroundCall[_Found]:
    history = handle.history

    def read() -> _Found:
        living = handle.liveness.list_living(history)
        history.refresh()
        return build_status(history, living), living

    return BackgroundCall(read)


def _has_runner(handle: JobHandle) -> bool:
    """Whether a runner that ends with this process lives."""
    return handle.is_own and handle.executor.own_runs.exit_status() is None
