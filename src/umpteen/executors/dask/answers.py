"""How the runners of one submission ended, as the workers answer."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from typing import Any

from umpteen.executors.base import BatchState
from umpteen.executors.dask.connection import Client
from umpteen.executors.dask.requests import Key, read_exit_status, read_state
from umpteen.executors.engine import is_hopeless, rank_status
from umpteen.executors.own_runs import ExitStatus, OwnRuns

__all__ = ["Answers", "Future", "find_future", "withdraw"]

Future = Any  # Dask's own, which has no types
_ANSWER_S = 8.0


class Answers(OwnRuns):
    """What carriers answer, read by a thread as it comes: a worker may have one and hang.

    An answer that was read need not be kept by its worker, which would have to give it again.
    """

    def __init__(self, client: Client, futures: dict[str, Future]) -> None:
        self.client, self.missing = client, futures  # by batch
        self.worst = ExitStatus(0)
        self.silent_since_s: float | None = None
        threading.Thread(target=self._work, daemon=True).start()

    def exit_status(self) -> ExitStatus | None:
        """The worst answer; None while there may be worse.

        A runner that cannot work at all ends the others that wait.
        """
        missing = list(self.missing.values())
        if is_hopeless(self.worst.code) or not missing:
            return self.worst
        if any(future.status == "pending" for future in missing):
            self.silent_since_s = None
            return None
        self.silent_since_s = self.silent_since_s or time.monotonic()
        is_given_up = time.monotonic() - self.silent_since_s > _ANSWER_S
        return self.worst if is_given_up else None

    def _work(self) -> None:
        from distributed import as_completed

        batches = {future.key: batch for batch, future in self.missing.items()}
        follow: Any = as_completed
        told = follow(
            list(self.missing.values()),
            loop=self.client.loop,
            with_results=True,
            raise_errors=False,
        )
        for future, answer in told:
            self._take(read_exit_status(future.status, answer))
            del self.missing[batches[future.key]], future

    def _take(self, answer: ExitStatus) -> None:
        if is_hopeless(answer.code) and not is_hopeless(self.worst.code):
            with contextlib.suppress(Exception):  # whatever it is, it is not shown
                withdraw(self.client, [future.key for future in self.missing.values()])
        self.worst = max(self.worst, answer, key=rank_status)


def withdraw(client: Client, keys: Sequence[Key]) -> None:
    """Have the scheduler forget those of these that have not begun."""
    states = client.sync(client.scheduler.get_task_status, keys=list(keys))
    queued = [key for key in keys if read_state(states.get(key)) == BatchState.QUEUED]
    client.cancel([find_future(key, client) for key in queued], force=True)


def find_future(key: Key, client: Client) -> Future:
    """What a client knows a task by."""
    from distributed import Future

    return Future(key, client)
