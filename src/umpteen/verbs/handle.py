"""A job that is watched: what `run`, `collect`, `retry` and `cancel` give to `watch`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from umpteen.executors.base import Executor, OnProgress
from umpteen.history.history import History
from umpteen.job.settings import Settings
from umpteen.store.address import is_remote
from umpteen.submission.plan import Scope
from umpteen.submission.settings import open_liveness
from umpteen.submission.submit import PlanSummary, Submitted

__all__ = ["JobHandle"]

_POLL_S, _POLL_FAR_S = 0.2, 2.0


class JobHandle:
    """A job that this process submitted, or found submitted."""

    def __init__(self, submitted: Submitted) -> None:
        self.liveness = open_liveness(submitted.settings)
        self._first = self._submitted = submitted
        self._ending: Sequence[int] | None = None
        self._is_interrupted = self._is_looking = False

    @property
    def history(self) -> History:
        """What is known of the job."""
        return self._submitted.history

    @property
    def settings(self) -> Settings:
        """How and where it runs."""
        return self._submitted.settings

    @property
    def executor(self) -> Executor:
        """What runs its batches."""
        return self._submitted.executor

    @property
    def batches(self) -> Sequence[str]:
        """The numbers of those that this process submitted last."""
        return self._submitted.batches

    @property
    def on_progress(self) -> OnProgress:
        """Called while a submission waits for something."""
        return self._submitted.on_progress

    @property
    def source_digest(self) -> str:
        """Of what the job was read from; empty where it was found in its store."""
        return self._submitted.source_digest

    @property
    def summary(self) -> PlanSummary:
        """What was submitted last; what is left alone is counted as at first."""
        first = self._first.summary
        return self._submitted.summary._replace(
            left_failed=first.left_failed, left_behind=first.left_behind
        )

    @property
    def rest(self) -> Scope:
        """What is submitted again where something of the job is left."""
        return self._first.rest

    @property
    def is_whole(self) -> bool:
        """Whether all tasks of the job were to have their turn."""
        return self.rest.only is None

    @property
    def left_over(self) -> int:
        """Tasks that changed while a batch had them: somebody has to submit them after it."""
        return len(self.history.stale - self.history.dropped)

    @property
    def poll_s(self) -> float:
        """Seconds between two looks."""
        return _POLL_FAR_S if is_remote(self.history.store.address) else _POLL_S

    @property
    def is_own(self) -> bool:
        """Whether what runs it ends when this process does."""
        return bool(self.batches) and self.executor.own_runs.is_attached

    @property
    def is_idle(self) -> bool:
        """Whether nothing was submitted, and nobody runs what was asked for."""
        return not self.batches and not self.summary.running

    @property
    def is_looking(self) -> bool:
        """Whether a look at the store lasts, so that nobody else may ask `history`."""
        return self._is_looking

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """For as long as a look at the store lasts."""
        self._is_looking = True
        try:
            yield
        finally:
            self._is_looking = False

    @property
    def is_interrupted(self) -> bool:
        """Whether the user asked to stop."""
        return self._is_interrupted

    def interrupt(self, *, at_once: bool = False) -> bool:
        """Stop watching, and end what this process runs: kindly, or at once.

        Whether there is such; else the job goes on without this process.
        """
        self._is_interrupted = True
        if self.is_own:
            self.executor.own_runs.stop(at_once=at_once)
        return self.is_own

    def let_go(self) -> None:
        """Have what this process runs go on without it."""
        self.executor.own_runs.detach()

    @property
    def ending(self) -> Sequence[int] | None:
        """Indices of the tasks that are being cancelled; None where it is not about that."""
        return self._ending

    def end(self, indices: Sequence[int]) -> None:
        """From now on it is watched until these tasks are recorded as cancelled."""
        self._ending = indices

    def go_on_with(self, submitted: Submitted) -> None:
        """Watch what was submitted of the same job after what was watched until now."""
        self._submitted = submitted

    def reread(self) -> None:
        """Read the store from its beginning, also what had ended before."""
        history = History(self.history.store)
        history.refresh()
        history.failures.take_recent()  # which was shown before
        self._submitted = self._submitted._replace(history=history)
