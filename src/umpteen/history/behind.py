"""Which tasks succeeded before what they are after did, and so used an older result of it.

The numbers of submissions (hand-ins) tell that, never clocks. Within one submission a task begins
when what it is after has ended, also where an earlier submission ran that. What a later submission
ran again is newer. So a task is behind if the submission that made its batch is earlier. Pure:
touches no file.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Mapping, Sequence

from umpteen.history.history import SUCCEEDED, History
from umpteen.job.dependencies import Graph
from umpteen.job.spec import Task
from umpteen.model.dependencies import FREE, OUTCOMES, Behind, meets
from umpteen.model.states import IS_FINAL, STATES

__all__ = ["Loose", "find_behind"]

_LATER = 1 << 62  # than every hand-in that there was
_Newest = tuple[int, int]  # the hand-in, and the position of a task that it had run


def find_behind(
    graph: Graph,
    indices: Sequence[int],
    history: History,
    living: Collection[int],
    runs: Collection[int] = (),
    restored: Collection[int] = (),
    loose: Loose | None = None,
) -> dict[int, int]:
    """The positions of tasks that are behind, each with the position of one that it is after.

    A task is behind, too, if it is after one that is. living: numbers of batches that somebody
    runs. runs: positions of tasks that run again. restored: indices of tasks that come back into
    the job as they were. loose: knows what tasks did not wait for when they ran.
    """
    newest = _NewestEnds(graph, indices, history, living, runs, frozenset(restored))
    found = newest.behind
    for position in graph.order:
        if graph.behind[position] == FREE or position in runs:
            continue
        index = indices[position]
        if index >= history.count or history.states[index] != SUCCEEDED:
            continue
        hand_in, other = newest.find(position)
        if hand_in <= history.made_by(index):
            other = loose.find(position) if loose else -1
        if other >= 0:
            found[position] = other
    return found


class Loose:
    """Finds a task that another is after now and was not before, and so may not have waited for.

    former: by index, what a task was after before, where that has changed. A task that an earlier
    hand-in ran was finished in any case.
    """

    def __init__(
        self,
        graph: Graph,
        tasks: Sequence[Task],
        indices: Sequence[int],
        history: History,
        former: Mapping[int, frozenset[str]],
    ) -> None:
        self.graph, self.tasks, self.indices = graph, tasks, indices
        self.history, self.former = history, former
        self._known: dict[tuple[frozenset[str], int, int], int] = {}

    def find(self, position: int) -> int:
        """Its position, if it has ended as is asked; else -1."""
        former = self.former.get(self.indices[position])
        if former is None:
            return -1
        made = self.history.made_by(self.indices[position])
        key = former, self.graph.behind[position], made
        if key not in self._known:
            self._known[key] = next(
                (
                    other
                    for other, outcome in self.graph.list_asked(position)
                    if self._has_ended(other, outcome, made) and not self._is_meant(other, former)
                ),
                -1,
            )
        return self._known[key]

    def _has_ended(self, position: int, outcome: str, made: int) -> bool:
        """Whether one hand-in had it run, too, to the end that is asked of it."""
        index = self.indices[position]
        if index >= self.history.count or self.history.made_by(index) != made:
            return False
        state = self.history.states[index]
        return IS_FINAL[state] and meets(outcome, STATES[state])

    def _is_meant(self, position: int, former: frozenset[str]) -> bool:
        name = self.tasks[position].name
        return any(name == one or fnmatch.fnmatchcase(name, one) for one in former)


class _NewestEnds:
    """Finds the newest end among the tasks that a task is after. behind: what is found so far."""

    def __init__(
        self,
        graph: Graph,
        indices: Sequence[int],
        history: History,
        living: Collection[int],
        runs: Collection[int],
        restored: frozenset[int],
    ) -> None:
        self.graph, self.indices, self.history = graph, indices, history
        self.living, self.runs, self.restored = living, runs, restored
        self.behind: dict[int, int] = {}
        self._of_barriers: dict[int, _Newest] = {}  # each asked once what is before it is settled

    def find(self, position: int) -> _Newest:
        """(hand-in, 0 where none counts; the task that ended so)."""
        number = self.graph.behind[position]
        task = Behind(number).task
        if task is not None:
            return self._date(task, OUTCOMES[0]), task
        if number not in self._of_barriers:
            asked = self.graph.list_asked(position)
            dated = ((self._date(other, outcome), other) for other, outcome in asked)
            self._of_barriers[number] = max(dated, default=(0, -1))
        return self._of_barriers[number]

    def _date(self, position: int, outcome: str) -> int:
        """The number of the hand-in in which a task came, or will come, to the end that is asked of
        it; 0 for none.
        """
        if position in self.runs or position in self.behind:
            # Whether it fails is not known before, and what is after a success is left alone.
            return 0 if outcome == "failed" else _LATER
        index = self.indices[position]
        if index >= self.history.count:
            return 0
        state = self.history.states[index]
        if IS_FINAL[state]:
            came = _LATER if index in self.restored else self.history.came_by(index)
            return came if meets(outcome, STATES[state]) else 0
        is_running = self.history.batch_of[index] in self.living
        return self.history.made_by(index) if is_running and outcome != "failed" else 0
