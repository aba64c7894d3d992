"""Which task is after which: names and patterns in, a checked graph with an order out.

Tasks with equal `after` share one barrier, so ten thousand tasks after ten thousand others
are twenty thousand edges; a task after the success of one other needs none. Pure: knows
neither files nor what ran before.
"""

from __future__ import annotations

import fnmatch
import re
from array import array
from collections.abc import Iterator, Sequence

import msgspec

from umpteen.errors import InputError, nearest_hint
from umpteen.job.spec import Task
from umpteen.model.dependencies import FREE, OUTCOMES, Behind

__all__ = ["Barrier", "Graph", "GraphError", "build_graph", "list_by_priority"]

_HINTED = 5000  # names are compared for a hint up to so many
_WILD = re.compile(r"[*?\[]")
_After = tuple[tuple[str, str], ...]


class GraphError(InputError):
    """What is wrong with an `after`; `position` is that of its task."""

    def __init__(self, message: str, hint: str | None, position: int) -> None:
        super().__init__(message, hint, field="after")
        self.position = position


class Barrier(msgspec.Struct, frozen=True, gc=False):
    """What must have come to an end: the positions of tasks, by the outcome asked for."""

    succeeded: list[int]
    any: list[int]
    failed: list[int]

    def members(self) -> Iterator[int]:
        """Every task of it."""
        yield from self.succeeded
        yield from self.any
        yield from self.failed


def _list_before(barriers: list[Barrier], behind: int) -> Iterator[int]:
    if behind >= 0:
        return barriers[behind].members()
    task = Behind(behind).task
    return iter(() if task is None else (task,))


class Graph(msgspec.Struct, frozen=True):
    """What each task is behind, and an order in which every task comes after those."""

    barriers: list[Barrier]
    behind: array[int]  # by position, the number of a `Behind`
    order: Sequence[int]  # of positions

    def before(self, position: int) -> Iterator[int]:
        """The tasks that a task is after."""
        return _list_before(self.barriers, self.behind[position])

    def list_asked(self, position: int) -> Iterator[tuple[int, str]]:
        """The tasks that a task is after, each with the outcome asked of it."""
        behind = Behind(self.behind[position])
        if behind.task is not None:
            yield behind.task, OUTCOMES[0]
        elif behind.barrier is not None:
            barrier = self.barriers[behind.barrier]
            for outcome in OUTCOMES:
                yield from ((other, outcome) for other in getattr(barrier, outcome))

    def list_behind(self, positions: set[int]) -> set[int]:
        """The tasks that are after any of these, directly or not."""
        found: set[int] = set()
        judged: dict[int, bool] = {FREE: False}  # all before a barrier come before who is behind
        for position in self.order:
            number = self.behind[position]
            if number not in judged:
                members = self.before(position)
                judged[number] = any(p in positions or p in found for p in members)
            if judged[number]:
                found.add(position)
        return found


def build_graph(tasks: Sequence[Task], canary: int = 0) -> Graph | None:
    """The graph of all tasks; None where no task is after another.

    canary: how many tasks of each template go first, the rest being after them. Raises
    GraphError for an unknown name, and for a cycle, which it names.
    """
    if not canary and not any(task.terms is not None and task.terms.after for task in tasks):
        return None
    finder = _Finder(tasks)
    position_of = finder.position_of
    roots = list_by_priority(tasks)
    behind = array("i", [FREE]) * len(tasks)
    barriers: list[Barrier] = []
    numbers: dict[_After, int] = {}
    matching: dict[_After, int] = {}  # the task that a pattern of its own `after` means, too
    for position, task in enumerate(tasks):
        if task.terms is None or not task.terms.after:
            continue
        name, outcome = task.terms.after[0]
        if len(task.terms.after) == 1 and outcome == "succeeded" and name in position_of:
            behind[position] = -2 - position_of[name]  # by far the most, so without a call
            continue
        after = tuple(task.terms.after)
        if finder.matches_itself(after, position):
            if after in matching:  # each is meant by the other's
                raise _tell_cycle(tasks, [matching[after], position])
            matching[after] = position
            behind[position] = len(barriers)
            barriers.append(finder.build_barrier(after, position))
            continue
        number = numbers.get(after)
        if number is None:
            number = numbers[after] = len(barriers)
            barriers.append(finder.build_barrier(after, position))
        behind[position] = number
    order = _order(tasks, barriers, behind, roots)
    if canary:
        _put_canaries_first(tasks, barriers, behind, order, canary)
        order = _order(tasks, barriers, behind, roots)
    return Graph(barriers, behind, order)


class _Finder:
    """Finds tasks by name or pattern."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tasks
        named = (p for p, task in enumerate(tasks) if task.name and not task.automatic)
        self.position_of = {tasks[p].name: p for p in named}
        self.found: dict[str, dict[int, None]] = {}

    def build_barrier(self, after: _After, position: int) -> Barrier:
        """What these mean to the task at a position, which no pattern counts itself among."""
        by_outcome: dict[str, dict[int, None]] = {outcome: {} for outcome in OUTCOMES}
        for pattern, outcome in after:
            found = self._find(pattern, position)
            if position in found and pattern not in self.position_of:
                found = {other: None for other in found if other != position}
                if not found:
                    message = f"after {pattern!r}: no other task's name is like that"
                    raise GraphError(message, None, position)
            by_outcome[outcome].update(found)
        return Barrier(*(list(by_outcome[outcome]) for outcome in OUTCOMES))

    def matches_itself(self, after: _After, position: int) -> bool:
        """Whether one of the patterns would mean the task at this position."""
        return any(
            position in self._find(pattern, position)
            for pattern, _ in after
            if pattern not in self.position_of
        )

    def _find(self, pattern: str, position: int) -> dict[int, None]:
        if pattern in self.position_of:
            return {self.position_of[pattern]: None}
        if pattern in self.found:
            return self.found[pattern]
        if not _WILD.search(pattern):
            hint = "only a task with a name can be waited for" if not self.position_of else None
            if 0 < len(self.position_of) < _HINTED:
                hint = nearest_hint(pattern, self.position_of)
            raise GraphError(f"after {pattern!r}: there is no task of that name", hint, position)
        match = re.compile(fnmatch.translate(pattern)).match
        found = {p: None for name, p in self.position_of.items() if match(name)}
        if not found:
            raise GraphError(f"after {pattern!r}: no task's name is like that", None, position)
        self.found[pattern] = found
        return found


def list_by_priority(tasks: Sequence[Task]) -> Sequence[int]:
    """Positions, those of the highest priority first, else as given."""
    priorities = [task.terms.priority if task.terms else 0 for task in tasks]
    if not any(priorities):
        return range(len(tasks))
    return sorted(range(len(tasks)), key=lambda position: -priorities[position])


def _order(
    tasks: Sequence[Task], barriers: list[Barrier], behind: array[int], roots: Sequence[int]
) -> Sequence[int]:
    """As given where that will do, else each task's own before it; chains stay together."""
    if isinstance(roots, range):
        last = [max(barrier.members()) for barrier in barriers]
        if all(
            (last[b] < position) if b >= 0 else -2 - b < position  # as `link`, without a call
            for position, b in enumerate(behind)
        ):
            return roots
    return _Walk(tasks, barriers, behind).run(roots)


class _Walk:
    """Depth first, without recursion. A node is a task, or a barrier as -1 - its number."""

    def __init__(self, tasks: Sequence[Task], barriers: list[Barrier], behind: array[int]) -> None:
        self.tasks, self.barriers, self.behind = tasks, barriers, behind
        self.done: set[int] = set()
        self.order = array("I")

    def run(self, roots: Sequence[int]) -> array[int]:
        for position in roots:
            if position not in self.done:
                self._visit(position)
        return self.order

    def _visit(self, root: int) -> None:
        path, open_nodes = [(root, self._below(root))], {root}
        while path:
            node, below = path[-1]
            following = next((n for n in below if n not in self.done), None)
            if following is None:
                path.pop()
                open_nodes.discard(node)
                self.done.add(node)
                if node >= 0:
                    self.order.append(node)
            elif following in open_nodes:
                raise self._cycle([n for n, _ in path], following)
            else:
                path.append((following, self._below(following)))
                open_nodes.add(following)

    def _below(self, node: int) -> Iterator[int]:
        if node < 0:
            return self.barriers[-1 - node].members()
        behind = self.behind[node]
        return iter((-1 - behind,)) if behind >= 0 else _list_before(self.barriers, behind)

    def _cycle(self, path: list[int], again: int) -> GraphError:
        around = [node for node in path[path.index(again) :] if node >= 0]
        if again < 0:  # the task that led to the barrier is the one that its member leads to
            around = [*around[-1:], *around[:-1]]
        return _tell_cycle(self.tasks, around)


def _tell_cycle(tasks: Sequence[Task], around: Sequence[int]) -> GraphError:
    """around: the positions, each after the next, and the last after the first."""
    names = [tasks[p].name or str(p) for p in [*around, around[0]]]
    if len(names) > 12:
        names = [*names[:6], "…", *names[-5:]]
    message = "tasks wait for each other: " + " after ".join(names)
    return GraphError(message, "one of them must not be after the next", around[0])


def _put_canaries_first(
    tasks: Sequence[Task],
    barriers: list[Barrier],
    behind: array[int],
    order: Sequence[int],
    canary: int,
) -> None:
    """Put every other task of a template behind its first `canary` ones."""
    groups: dict[int, list[int]] = {}
    for position in order:
        terms = tasks[position].terms
        groups.setdefault(terms.template if terms else 0, []).append(position)
    numbers: dict[tuple[int, int], int] = {}
    for template, members in groups.items():
        first = members[:canary]
        for position in members[canary:]:
            key = (template, behind[position])
            if key not in numbers:
                numbers[key] = len(barriers)
                barriers.append(_join(barriers, behind[position], first))
            behind[position] = numbers[key]


def _join(barriers: list[Barrier], behind: int, first: list[int]) -> Barrier:
    if behind < 0:
        return Barrier(list(dict.fromkeys([*_list_before(barriers, behind), *first])), [], [])
    old = barriers[behind]
    return Barrier(list(dict.fromkeys([*old.succeeded, *first])), old.any, old.failed)
