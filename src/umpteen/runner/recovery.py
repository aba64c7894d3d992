"""What earlier starts of a batch leave to a new one: which live, who gives way, what is left.

The rules are those of docs/failures.md. Reads the store and the leases of this machine; writes
nothing but what a dead start said last. Standard library alone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence

from umpteen.errors import StoreError
from umpteen.model.batch import BatchView
from umpteen.model.forms import MOST_TASKS
from umpteen.model.reasons import Reason
from umpteen.model.states import NUMBER_OF
from umpteen.runner.active_batch import Past
from umpteen.runner.lease import is_alive, read_last_slots
from umpteen.store.base import Store
from umpteen.store.identity import Identity, describe_place, is_another
from umpteen.store.job_files import parse_running
from umpteen.store.layout import RecordsKey, closed_key, running_key
from umpteen.store.records import Start, StartLine, list_starts, read_start
from umpteen.system.host import Machine

__all__ = ["EARLIER_S", "Recovery"]

EARLIER_S, _POLL_S = 15.0, 0.5  # how long an earlier start elsewhere is waited for, and how often
_KILLER_DEATHS = 3  # runners that one task has killed before it is not run again


class Recovery:
    """What a runner has to know of other starts of the batches of its store."""

    def __init__(self, identity: Identity, store: Store, here: Machine, *, take_over: bool) -> None:
        self.store, self.here = store, here
        self.place = describe_place(here, identity.place)  # of the store, as a start tells it
        self.take_over = take_over  # an earlier start that lives on this machine is to end
        self.waits_until_s = 0.0  # for earlier starts of all batches; 0: for each anew

    def read(self, batch: str, keys: Iterable[RecordsKey]) -> list[Start]:
        """What these starts of a batch recorded so far."""
        return [read_start(self.store, batch, key, self.here) for key in keys]

    # --- which of them live -------------------------------------------------------------------

    def may_live(self, start: Start) -> bool:
        """Whether more may come from a start: all but those that are known to be over."""
        return self._lives(start) is not False

    def _lives(self, start: Start) -> bool | None:
        """By its lease: True, False, or None where this machine cannot know."""
        if start.ended:
            return False
        if not start.opened:  # killed before its first line; where it was, its lease is
            return is_alive(start.key.token)
        if start.opened.machine != self.here.machine:
            return None
        if start.opened.boot != self.here.boot or self._is_copied(start.opened):
            return False
        return is_alive(start.key.token)

    def _is_copied(self, opened: StartLine) -> bool:
        """Whether it was of the store that this one is a copy of: nothing of that is ours."""
        return is_another(opened.place, self.place)

    # --- who gives way --------------------------------------------------------------------------

    def find_rival(self, starts: Sequence[Start]) -> Start | None:
        """An earlier start that lives on this machine, where it is not to be taken over."""
        if self.take_over:
            return None
        return next((start for start in starts if self._lives(start)), None)

    def wait_for_earlier(self, batch: str, keys: Sequence[RecordsKey]) -> list[Start]:
        """The earlier starts, once they have ended or have had their time to."""
        limit = self.waits_until_s or time.monotonic() + EARLIER_S
        while True:
            starts = self.read(batch, keys)
            if time.monotonic() >= limit or not any(map(self.may_live, starts)):
                return starts
            time.sleep(_POLL_S)

    def must_yield(self, batch: str, own: RecordsKey) -> bool:
        """Whether a later start has taken a batch over, or it was closed."""
        if self.store.read(closed_key(batch)) is not None:
            return True
        for key in list_starts(self.store, batch):
            if key > own:
                opened = read_start(self.store, batch, key, self.here).opened
                if opened and (opened.machine != self.here.machine or opened.take_over):
                    return True
        return False

    def clear_running(self, batch: str, starts: Sequence[Start]) -> None:
        """Remove what dead starts said last of what they run."""
        for start in starts:
            if not start.ended and self._lives(start) is False:
                with contextlib.suppress(StoreError):
                    self.store.delete(running_key(batch, start.key))

    # --- what is left -------------------------------------------------------------------------

    def find_left(self, view: BatchView, starts: Sequence[Start]) -> Past:
        """What is left to do after what earlier starts recorded."""
        past = Past([], [], {}, {}, {}, {}, set(), {})
        if any(not start.ended or start.ended.left > 0 for start in starts):
            past.unsure.update(view.indices)
        _add_former_batches(past, view)
        for start in starts:
            _add_start(past, start)
        suspects, killer = self._list_suspects(view, starts)
        for position, index in enumerate(view.indices):
            is_done = index in past.finals
            if not is_done and position != killer:
                (past.alone if position in suspects else past.todo).append(position)
            elif not is_done:
                past = past._replace(killer=killer)
        return past

    def _list_suspects(
        self, view: BatchView, starts: Sequence[Start]
    ) -> tuple[set[int], int | None]:
        """(tasks that ran at the last two deaths of runners, the one that killed three)."""
        died = [self._list_at_death(view, start) for start in starts]
        deaths = [positions for positions in died if positions is not None]
        if len(deaths) < _KILLER_DEATHS - 1:
            return set(), None
        suspects = deaths[-1] & deaths[-2]
        if len(deaths) >= _KILLER_DEATHS and len(deaths[-1]) == 1 and suspects & deaths[-3]:
            return set(), next(iter(deaths[-1]))
        return suspects, None

    def _list_at_death(self, view: BatchView, start: Start) -> set[int] | None:
        """What ran when a runner died, or the worker of its engine; None where neither did."""
        opened = start.opened
        if start.ended:
            if not start.ended.orphan:
                return None
            indices = {r.task for r in start.records if r.reason == Reason.INTERRUPTED.value}
        elif opened is None:
            return None
        elif opened.machine == self.here.machine:
            is_same_boot = opened.boot == self.here.boot and not self._is_copied(opened)
            return _read_death(view, start) if is_same_boot else None
        elif opened.take_over:
            content = self.store.read(running_key(view.batch, start.key))
            indices = {task.task for task in parse_running(content, MOST_TASKS).tasks}
        else:
            return None
        return {position for position, index in enumerate(view.indices) if index in indices}


def _add_former_batches(past: Past, view: BatchView) -> None:
    """What the file of a batch says of attempts in batches before it."""
    for position, (attempt, token, *more) in view.before.items():
        index = view.indices[int(position)]
        if not attempt:
            past.unsure.add(index)
            continue
        past.attempts[index] = attempt
        past.labels[index] = (attempt, token)
        if more and more[0]:
            past.tries[index] = more[0]
        if more[1:]:
            past.seconds[index] = more[1]


def _add_start(past: Past, start: Start) -> None:
    for record in start.records:
        past.labels[record.task] = (record.attempt, start.key.token)
        past.attempts[record.task] = max(past.attempts.get(record.task, 0), record.attempt)
        past.seconds[record.task] = record.find_seconds(past.seconds.get(record.task, 0.0))
        if record.is_final:
            past.finals[record.task] = NUMBER_OF[record.state]
        elif record.retry:
            past.tries.setdefault(record.task, []).append(record.to_dict())


def _read_death(view: BatchView, start: Start) -> set[int]:
    """What ran when a runner of this machine died, or had ended before that could record it."""
    token, recorded = start.key.token, {record.task for record in start.records}
    ended = read_last_slots(token, view.batch, ended=True)
    lost = {position for position in ended if view.indices[position] not in recorded}
    return lost | read_last_slots(token, view.batch)
