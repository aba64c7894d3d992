"""Which batches run somewhere: what executors say of them, or what their files show."""

from __future__ import annotations

import collections
import contextlib
import time
from collections.abc import Iterable
from typing import Any

import msgspec

from umpteen.errors import UmpteenError
from umpteen.executors.base import BatchState
from umpteen.executors.registry import DEFAULT, ExecutorRegistry, find_short_name, runs_here
from umpteen.history.history import BatchHistory, History
from umpteen.history.settings import read_settings
from umpteen.query.status import JobStatus, build_status, list_living
from umpteen.query.trust import tell_unasked

__all__ = ["UNKNOWN_S", "Liveness", "explain_waiting", "list_handles", "read_status"]


UNKNOWN_S = 60.0  # by when what does not change is taken to be dead


def read_status(history: History, executors: ExecutorRegistry | None = None) -> JobStatus:
    """How the job stands now, by one look. executors: as of `Liveness`.

    Where none are given, those that it opens are closed again.
    """
    if executors is None:
        with ExecutorRegistry() as opened:
            return read_status(history, opened)
    liveness = Liveness(executors)
    living = liveness.list_living(history)
    status = build_status(history, living)
    if living and living <= liveness.seen.keys():  # and one look does not tell
        trouble = status.trouble or liveness.reason
        return msgspec.structs.replace(status, state="unknown", trouble=trouble)
    if living and not status.running:
        waiting = explain_waiting(history, living, liveness.executors)
        return msgspec.structs.replace(status, trouble=waiting or status.trouble)
    return status


def explain_waiting(history: History, living: set[str], executors: ExecutorRegistry) -> str:
    """Why nothing of these batches runs, where an executor knows."""
    options = dict(read_settings(history).get("executor_options") or {})
    options.pop("worker_timeout", None)  # which is for those to keep who wait
    batches = map(history.batches.__getitem__, living)
    for name, handles in list_handles(history, batches, executors.given).items():
        with contextlib.suppress(UmpteenError):
            if reason := executors.open(name, options).why_waiting(handles):
                return reason
    return ""


def list_handles(
    history: History, batches: Iterable[BatchHistory], given: str = ""
) -> dict[str, list[str]]:
    """The handles to ask about, by executor: the executor's own for each batch, and the leases of
    runners.

    given: the executor that the caller names himself, as of `tell_unloaded`.
    """
    handles: dict[str, list[str]] = collections.defaultdict(list)
    unasked: dict[tuple[str, int], str] = {}  # thousands of batches may be of one hand-in
    for batch in batches:
        hand_in = batch.executor, batch.hand_in
        if batch.handle and hand_in not in unasked:
            unasked[hand_in] = tell_unasked(history, batch, given)
        if batch.handle and not unasked[hand_in]:
            handles[find_short_name(batch.executor)].append(batch.handle)
        if batch.lease:
            handles[DEFAULT].append(batch.lease)  # a lease is of this machine, whoever submitted it
    return handles


class Liveness:
    """Which batches are run by somebody: what their executors say, each asked once for all.

    Where they cannot know (another machine's runner), a batch lives until its files have not
    changed for 60 s by our clock; its runner replaces one every 15 s.
    """

    # executors: those to ask; where there are none it opens its own, each once.
    def __init__(self, executors: ExecutorRegistry | None = None) -> None:
        self.executors = executors or ExecutorRegistry()
        self.reason = ""  # why an executor was not asked, the last time
        # By batch: what its files said, and since when by our clock.
        self.seen: dict[str, tuple[Any, float]] = {}

    def list_living(self, history: History) -> set[str]:
        """The batches that are run by somebody, or may be."""
        open_batches = history.list_open()
        polled: dict[str, str] = {}
        for name, asked in list_handles(history, open_batches, self.executors.given).items():
            polled.update(self.executors.open_any(name).poll(asked))
        unpolled = [b for b in open_batches if b.handle and b.handle not in polled]
        polled.update((batch.handle, BatchState.UNKNOWN) for batch in unpolled)
        if unpolled:
            self.reason = tell_unasked(history, unpolled[-1], self.executors.given)
        living = list_living(history, polled)
        for batch in open_batches:
            told = (
                polled.get(batch.lease, BatchState.ENDED),
                polled.get(batch.handle, BatchState.ENDED),
            )
            # What an engine says of a batch counts more than that we cannot see its runner.
            is_told = (
                batch.handle and not runs_here(batch.executor) and told[1] != BatchState.UNKNOWN
            )
            is_unknown = not is_told and BatchState.UNKNOWN in told
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
