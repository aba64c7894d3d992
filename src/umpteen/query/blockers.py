"""Which tasks keep another from running, and which came to their end after it had succeeded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from umpteen.history.behind import find_behind
from umpteen.history.history import SUCCEEDED, History
from umpteen.history.settings import read_settings
from umpteen.job.dependencies import Graph, build_graph
from umpteen.job.spec import Task
from umpteen.model.dependencies import meets
from umpteen.model.states import IS_FINAL, STATES

__all__ = ["BlockerSearch", "FoundBlocker"]


class FoundBlocker(NamedTuple):
    """A task that has not come to what another asks of it."""

    task: int  # its index
    # Asked of it: `succeeded`, `any` or `failed`.
    outcome: str
    # Indices of the tasks between it and the other, which were skipped one after another.
    by: list[int]


class BlockerSearch:
    """Finds which tasks keep another from running, by the dependencies between all of them."""

    def __init__(self, history: History, tasks: Sequence[Task]) -> None:
        self._history = history
        # Graphs are over the tasks that count: their indices, and the position of each among them.
        self._indices = [index for index in range(len(tasks)) if index not in history.dropped]
        self._position = {index: position for position, index in enumerate(self._indices)}
        counted = [tasks[index] for index in self._indices]
        canary = read_settings(history).get("canary", 0)
        self._graph: Graph | None = build_graph(counted, canary)
        # Without what waits only for canaries.
        self._declared: Graph | None = build_graph(counted) if canary else self._graph

    def find(self, index: int) -> list[FoundBlocker]:
        """What keeps a task from running: first what has ended, then what has not."""
        ended: list[FoundBlocker] = []
        pending: list[FoundBlocker] = []
        for other, outcome in self._list_unmet(index):
            if IS_FINAL[self._history.states[other]]:
                root, by = self._find_root(other)
                ended.append(FoundBlocker(root, outcome, by))
            else:
                pending.append(FoundBlocker(other, outcome, []))
        return [*ended, *pending]

    def find_newer(self, index: int, living: set[str]) -> tuple[int, bool]:
        """A task that this one is after and that came to its end since this one succeeded.

        (its index, -1 where there is none; whether that task is behind itself).
        """
        history = self._history
        if (
            self._declared is None
            or index not in self._position
            or history.states[index] != SUCCEEDED
        ):
            return -1, False
        behind = find_behind(self._declared, self._indices, history, history.numbers_of(living))
        other = behind.get(self._position[index], -1)
        return (self._indices[other] if other >= 0 else -1), other in behind

    def is_canary(self, index: int, behind: int) -> bool:
        """Whether a task waits for this one only because canaries go first.

        behind: the index of the task that waits.
        """
        if self._declared is self._graph:
            return False
        before = self._declared.before(self._position[behind]) if self._declared else ()
        return self._position[index] not in before

    def count_behind(self, index: int) -> int:
        """How many tasks that are after this one were skipped."""
        if self._graph is None or index not in self._position:
            return 0
        behind = self._graph.list_behind({self._position[index]})
        states = (STATES[self._history.states[self._indices[position]]] for position in behind)
        return sum(state == "skipped" for state in states)

    def _find_root(self, index: int) -> tuple[int, list[int]]:
        """From a task that was skipped back to the first that was not, and those between."""
        by: list[int] = []
        while STATES[self._history.states[index]] == "skipped":
            unmet = next((i for i, _ in self._list_unmet(index) if i not in by), None)
            if unmet is None:
                break
            by.append(index)
            index = unmet
        return index, by

    def _list_unmet(self, index: int) -> Iterator[tuple[int, str]]:
        """(index, the outcome asked of it) of what has not come to that outcome."""
        if self._graph is None or index not in self._position:
            return
        for position, outcome in self._graph.list_asked(self._position[index]):
            other = self._indices[position]
            state = self._history.states[other]
            if not (IS_FINAL[state] and meets(outcome, STATES[state])):
                yield other, outcome
