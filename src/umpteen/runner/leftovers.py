"""What dead runners of a store left on this machine, and in the store's folder.

Cleared by its next runner, `cancel` and `rm`. Standard library alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil

from umpteen.runner.lease import KEPT, SPOOL, end_leftovers
from umpteen.store.address import is_remote
from umpteen.store.identity import Identity
from umpteen.store.layout import RUNNING, parse_running_key, running_folder, scratch_folder
from umpteen.system.plain_files import folder_below, remove_below, remove_empty

__all__ = ["clear_dead", "remove_scratch"]


def clear_dead(store: Identity) -> None:
    """End what dead runners of a store left running here,
    and remove what nobody needs of theirs.
    """

    def clear(token: str, lease: str) -> None:
        if not os.path.exists(os.path.join(lease, KEPT)):
            shutil.rmtree(os.path.join(lease, SPOOL), ignore_errors=True)
        if not is_remote(store.address):
            with contextlib.suppress(OSError):
                _clear_folder(store.address, token)

    end_leftovers(store, clear)


def _clear_folder(address: str, token: str) -> None:
    """Remove a runner's results folders, and what it said last of what it runs; raises OSError."""
    remove_scratch(address, token)
    for batch in _list(address, RUNNING):
        folder = running_folder(batch)
        for name in _list(address, folder):
            key = parse_running_key(name)
            if key is not None and key.token == token:
                remove_below(address, f"{folder}/{name}")
        remove_empty(address, folder)


def remove_scratch(address: str, token: str) -> None:
    """Remove the results folders of a runner's slots; raises OSError."""
    scratch = scratch_folder(token)
    remove_below(address, scratch)
    remove_empty(address, os.path.dirname(scratch))


def _list(address: str, folder: str) -> list[str]:
    try:
        with folder_below(address, folder) as found:
            return os.listdir(found)
    except (FileNotFoundError, NotADirectoryError):
        return []
