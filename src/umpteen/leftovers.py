"""What dead runners of a store left on this machine, and in the store's folder: cleared by any verb.

Standard library alone.
"""

from __future__ import annotations

import contextlib
import os
import shutil

from umpteen.identity import Identity
from umpteen.lease import KEPT, SPOOL, end_leftovers
from umpteen.results.base import RUNNING, parse_running_key, scratch_folder
from umpteen.results.beneath import folder_below, remove_below
from umpteen.results.opening import is_remote

__all__ = ["clear_dead"]


def clear_dead(store: Identity) -> None:
    """End what dead runners of a store left running here, and remove what nobody needs of theirs."""

    def clear(token: str, lease: str) -> None:
        if not os.path.exists(os.path.join(lease, KEPT)):
            shutil.rmtree(os.path.join(lease, SPOOL), ignore_errors=True)
        if not is_remote(store.address):
            with contextlib.suppress(OSError):
                _clear_folder(store.address, token)

    end_leftovers(store, clear)


def _clear_folder(address: str, token: str) -> None:
    """Remove a runner's results folders, and what it said last of what it runs; raises OSError."""
    scratch = scratch_folder(token)
    remove_below(address, scratch)
    for batch in _list(address, RUNNING):
        for name in _list(address, f"{RUNNING}/{batch}"):
            key = parse_running_key(name)
            if key is not None and key.token == token:
                remove_below(address, f"{RUNNING}/{batch}/{name}")
        _remove_empty(address, RUNNING, batch)
    _remove_empty(address, *os.path.split(os.path.dirname(scratch)))


def _list(address: str, folder: str) -> list[str]:
    try:
        with folder_below(address, folder) as found:
            return os.listdir(found)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _remove_empty(address: str, above: str, name: str) -> None:
    with contextlib.suppress(OSError), folder_below(address, above) as folder:
        os.rmdir(name, dir_fd=folder)
