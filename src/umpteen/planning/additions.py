"""Adds tasks to those that were chosen: the tasks that these need, and the tasks that are behind.

A task is behind if it succeeded before a task that it is after did. Pure: touches no file.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence

from umpteen.history.behind import Loose, find_behind
from umpteen.history.history import SUCCEEDED
from umpteen.job.dependencies import Graph
from umpteen.job.spec import Task
from umpteen.model.dependencies import FREE
from umpteen.planning.choosing import Chooser, Chosen
from umpteen.planning.matching import MatchedTasks

__all__ = ["Additions", "list_loose"]


class Additions:
    """Finds the tasks to add. Here a task is given by its position in the job, not by its index."""

    def __init__(
        self,
        matched: MatchedTasks,
        graph: Graph,
        meant: Graph | None,
        chooser: Chooser,
        only: Chosen | None,
        *,
        follow: bool,
    ) -> None:
        """graph: the dependencies with those on canaries. meant: the dependencies that the job
        itself asks for. follow: whether what is behind a chosen task runs with it.
        """
        self.matched, self.graph, self.meant = matched, graph, meant
        self.chooser, self.only, self.follow = chooser, only, follow
        # Tasks that are behind, each with one that it is after: those that run, and others.
        self.behind: dict[int, int] = {}
        self.left: dict[int, int] = {}
        # What has to run for the others.
        self.needed: set[int] = set()
        # How many were taken to be done, and are behind.
        self.undone = 0

    def complete(
        self, to_run: Sequence[int], why: dict[str, int], *, is_partial: bool
    ) -> Sequence[int]:
        """The indices of all tasks that run, in order: those that were chosen and those to add.

        why: gets how many were added for which reason. is_partial: whether tasks that the chosen
        ones are after may have been left out.
        """
        indices, order = self.matched.indices, self.graph.order
        may_be_behind = SUCCEEDED in self.chooser.history.states
        if not (is_partial or may_be_behind):
            if len(to_run) == len(order) and isinstance(order, range):
                return to_run
            runs = set(to_run)
            return array("I", (indices[p] for p in order if indices[p] in runs))
        chosen = set(to_run)
        wanted = {position for position in order if indices[position] in chosen}
        if may_be_behind and self.meant is not None:
            self._find(wanted, self.meant, is_partial=is_partial)
        elif is_partial:
            self.needed = self._list_needed(wanted)
        counts = {"behind": len(self.behind), "needed": len(self.needed)}
        why.update((reason, count) for reason, count in counts.items() if count)
        wanted.update(self.behind, self.needed)
        return array("I", (indices[position] for position in order if position in wanted))

    def _find(self, wanted: set[int], meant: Graph, *, is_partial: bool) -> None:
        """Find what is behind and what is needed, in turns, until nothing new is found: a task that
        is behind needs others, and a needed task has others behind it.
        """
        matched, chooser = self.matched, self.chooser
        loose = Loose(meant, matched.tasks, matched.indices, chooser.history, list_loose(matched))
        while True:
            runs = wanted.union(self.behind, self.needed)
            reached = self._reach(meant, runs)
            found = find_behind(
                meant,
                matched.indices,
                chooser.history,
                chooser.living,
                runs,
                matched.restored,
                loose,
            )
            self.behind.update((p, other) for p, other in found.items() if self._takes(p, reached))
            if not is_partial:
                break
            more = self._list_needed(wanted.union(self.behind, self.needed), found)
            self.needed |= more
            if more <= found.keys():  # whose followers were found with them
                break
        self.left = {
            position: other
            for position, other in found.items()
            if position not in self.behind
            and position not in self.needed
            and (self._is_chosen(position) or position in reached)
        }
        self.undone = sum(map(self._is_chosen, found))

    def _reach(self, meant: Graph, runs: set[int]) -> set[int]:
        """All tasks that are after one that was chosen or runs; none where all were chosen."""
        if self.only is None:
            return set()
        positions = range(len(self.matched.tasks))
        return meant.list_behind(runs.union(filter(self._is_chosen, positions)))

    def _is_chosen(self, position: int) -> bool:
        index, task = self.matched.indices[position], self.matched.tasks[position]
        return self.only is None or self.only(index, task)

    def _takes(self, position: int, reached: set[int]) -> bool:
        if "behind" not in self.chooser.wanted:
            return False
        return self._is_chosen(position) or (self.follow and position in reached)

    def _list_needed(self, runs: set[int], behind: Collection[int] = ()) -> set[int]:
        """The tasks that these are after and that must run first: they have not come to an end, or
        are behind themselves.
        """
        needed: set[int] = set()
        stale = behind if "behind" in self.chooser.wanted else ()
        seen = {FREE}  # barriers, each of which may have ten thousand tasks behind it
        for position in reversed(self.graph.order):
            number = self.graph.behind[position]
            if number in seen or (position not in runs and position not in needed):
                continue
            seen.add(number)
            needed.update(
                earlier
                for earlier in self.graph.before(position)
                if earlier not in runs
                and (earlier in stale or self.chooser.is_open(self.matched.indices[earlier]))
            )
        return needed

    def name_behind(self) -> tuple[dict[int, int], dict[int, int]]:
        """`behind` and `left`, with indices in place of positions."""
        indices = self.matched.indices
        behind, left = (
            {indices[one]: indices[other] for one, other in pairs.items()}
            for pairs in (self.behind, self.left)
        )
        return behind, left


def list_loose(matched: MatchedTasks) -> dict[int, frozenset[str]]:
    """By index, what a task was after before, where it is after something more now."""
    changed = [(u.index, _names_after(u.before), _names_after(u.now)) for u in matched.updates]
    return {index: before for index, before, now in changed if not now <= before}


def _names_after(task: Task) -> frozenset[str]:
    return frozenset(name for name, _ in task.options.after) if task.options else frozenset()
