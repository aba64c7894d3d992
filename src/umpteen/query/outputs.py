"""Where the outputs of a task are, and how one is opened."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

from umpteen.errors import ErrorCode, SettingsError, StoreError
from umpteen.history.history import History
from umpteen.job.spec import Task
from umpteen.model.record import Record
from umpteen.query.registry import find_options
from umpteen.query.trust import find_stranger
from umpteen.store.address import find_output, is_remote, is_root, parse_address
from umpteen.store.base import Store
from umpteen.store.layout import attempt_folder

__all__ = ["NotOpenedError", "Outputs", "check_output", "find_outputs", "open_output"]


class Outputs(NamedTuple):
    """Where one attempt of a task left what it wrote: a store, and the folder in it."""

    store: Store
    folder: str

    @property
    def address(self) -> str:
        """The folder, or address."""
        return self.store.path(self.folder)

    def key(self, name: str) -> str:
        """Of one of its files, in its store."""
        return f"{self.folder}/{name}"

    def read_text(self, name: str) -> str | None:
        """One of its files; None where there is none."""
        content = self.store.read(self.key(name))
        return None if content is None else content.decode(errors="replace")


def find_outputs(
    history: History, task: Task, token: str, record: Record | None, *, is_newest: bool = False
) -> Outputs:
    """Where the outputs of an attempt are: what was set aside since is below `attempts/`.

    is_newest: whether there is no later attempt, so that an object store need not be asked.
    """
    store, base = _find_output(history, task)
    if record is None:
        return Outputs(store, base)
    is_far = is_remote(store.address)
    if is_far and is_newest and not record.outputs:
        return Outputs(store, base)
    for below in (record.outputs, attempt_folder(record.attempt, token)):
        with contextlib.suppress(StoreError):  # what is no folder has no outputs
            if below and store.names(f"{base}/{below}"):
                return Outputs(store, f"{base}/{below}")
    return Outputs(store, base)


def _find_output(history: History, task: Task) -> tuple[Store, str]:
    if not task.output:
        return history.store, task.name
    return open_output(history, task.output, task.name)


def open_output(history: History, output: str, name: str) -> tuple[Store, str]:
    """The store that has the outputs of a task, given their address, and their folder in it.

    name: the task's. Raises NotOpenedError for a place elsewhere that somebody else may have named.
    """
    check_output(history, output, name)
    return find_output(history.store, output, options=find_options(history.store.address) or None)


class NotOpenedError(StoreError):
    """Outputs are said to be at a place that is not asked, as somebody else may have named it."""

    code = ErrorCode.STORE_NOT_TRUSTED


def check_output(history: History, output: str, name: str) -> None:
    """Raises NotOpenedError for the root folder, and for a place elsewhere that somebody else may
    have named.
    """
    if is_root(output):
        hint = "no outputs are there: give the task another path, and run it again"
        raise NotOpenedError(f"the outputs of {name} are at {output}, the root folder", hint)
    own = history.store.address
    try:
        address = parse_address(output)
        is_near = address.startswith(f"{own}/") or not (is_remote(own) or is_remote(address))
    except SettingsError:  # nothing can be kept there, whoever says so
        address, is_near = output, False
    if not is_near and (found := find_stranger(history)):
        raise NotOpenedError(
            f"the outputs of {name} are at {address}, which is not opened: "
            f"{found} may be somebody else's",
            "look there by other means, if you trust who says so",
        )
