"""Which files the tasks of a job left.

A store that is no folder is listed as a whole once, not task by task.
"""

from __future__ import annotations

import enum
import stat
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from umpteen.errors import SettingsError, StoreError
from umpteen.history.history import History
from umpteen.job.spec import Task
from umpteen.model.archive import stays_inside
from umpteen.query.outputs import NotOpenedError, Outputs, find_outputs
from umpteen.store.address import is_remote
from umpteen.store.base import Store
from umpteen.store.directory import DirectoryStore
from umpteen.store.layout import OUTPUTS
from umpteen.system.plain_files import Found, describe_kind

__all__ = ["LeftOut", "LeftOutKind", "TaskFiles", "list_task_files"]

_RESULTS = "results/"


class TaskFiles(NamedTuple):
    """What one task left."""

    task_index: int
    task: Task
    outputs: Outputs
    # Paths below the outputs, in order; none that is left out.
    files: list[Found]

    @property
    def results(self) -> list[str]:
        """The files in its results directory, by their paths in that."""
        paths = (found.path for found in self.files)
        return [path[len(_RESULTS) :] for path in paths if path.startswith(_RESULTS)]

    def find_address(self, result: str) -> str:
        """Where one of its results is."""
        return f"{self.outputs.address}/{_RESULTS}{result}"


class LeftOutKind(enum.Enum):
    """Why something is left out; the word is what `--json` shows."""

    OUTPUTS = "outputs"  # nothing of a task can be looked at
    NAME = "name"  # its name would lead out of the destination
    LINK = "link"  # it leads out of the task's results
    SPECIAL = "special"  # a pipe or the like
    UNREADABLE = "unreadable"
    GONE = "gone"  # it went away meanwhile
    IN_THE_WAY = "in the way"  # something else is in its place


class LeftOut(NamedTuple):
    """Something that was wanted and is not listed or copied."""

    path: str
    kind: LeftOutKind
    # In words.
    why: str


def list_task_files(history: History, left_out: list[LeftOut]) -> Iterator[TaskFiles]:
    """Each task that counts with what its newest attempt left, in order of its files' paths.

    left_out: gets each task whose outputs are not looked at, and what is no file among them.
    """
    listed: dict[str, list[Found]] | None = None
    for index, task in enumerate(history.read_tasks()):
        if index in history.dropped:
            continue
        try:
            outputs = find_outputs(history, task, "", None)
            if outputs.store is history.store and is_remote(history.store.address):
                if listed is None:
                    listed = _list_all(history.store)
                found = listed.get(outputs.folder, [])
            else:
                found = _look(outputs)
        except (NotOpenedError, SettingsError) as error:
            left_out.append(LeftOut(task.name, LeftOutKind.OUTPUTS, str(error)))
            continue
        except StoreError as error:
            if not error.damaged:
                raise
            left_out.append(LeftOut(task.name, LeftOutKind.OUTPUTS, str(error)))
            continue
        yield TaskFiles(index, task, outputs, list(_choose_files(task.name, found, left_out)))


def _look(outputs: Outputs) -> list[Found]:
    store = outputs.store
    if isinstance(store, DirectoryStore):
        below = store.look(outputs.folder)
    else:
        below = [_describe(path, size) for path, size in store.walk(outputs.folder)]
    return [found for found in below if found.path.split("/")[0] in OUTPUTS]


def _describe(path: str, size: int) -> Found:
    return Found(path, stat.S_IFREG, size)


def _list_all(store: Store) -> dict[str, list[Found]]:
    """By the folder of a task, what is in it and is no earlier attempt's."""
    found: dict[str, list[Found]] = {}
    for path, size in store.walk(""):
        parts = path.split("/")
        for place in range(1, len(parts)):
            if parts[place] in OUTPUTS and "attempts" not in parts[:place]:
                folder, rest = "/".join(parts[:place]), "/".join(parts[place:])
                found.setdefault(folder, []).append(_describe(rest, size))
                break
    return found


def _choose_files(name: str, found: Sequence[Found], left_out: list[LeftOut]) -> Iterator[Found]:
    """Files, and links that stay in the task's results."""
    for each in sorted(found):
        shown = f"{name}/{each.path}"
        if stat.S_ISREG(each.mode):
            yield each
        elif not stat.S_ISLNK(each.mode):
            left_out.append(LeftOut(shown, LeftOutKind.SPECIAL, f"is {describe_kind(each.mode)}"))
        elif each.path.startswith(_RESULTS) and stays_inside(each.path[len(_RESULTS) :], each.link):
            yield each
        else:
            left_out.append(LeftOut(shown, LeftOutKind.LINK, f"is a link to {each.link}"))
