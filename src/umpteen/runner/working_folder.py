"""Where the folders of a batch are on this machine: what was synced, and where commands start."""

from __future__ import annotations

import os

from umpteen.model.batch import BatchView
from umpteen.runner.synced import synced_folder

__all__ = ["choose_cwd", "find_synced", "synced_place"]


def choose_cwd(batch: BatchView) -> str | None:
    """The folder that commands start in; None is where the runner itself is.

    That is the folder that the job was submitted from, where this machine has it, else what was
    synced first.
    """
    return _find_base(batch) or find_synced(batch)


def find_synced(batch: BatchView) -> str | None:
    """The first folder that was synced; None where nothing was."""
    return synced_place(batch, *batch.synced[0][:2]) if batch.synced else None


def synced_place(batch: BatchView, digest: str, destination: str | None) -> str:
    """Where a folder that is synced is on this machine."""
    if not destination:
        return synced_folder(digest)
    return os.path.abspath(os.path.join(_find_base(batch), os.path.expanduser(destination)))


def _find_base(batch: BatchView) -> str:
    """The folder that relative paths begin at; empty is where the runner itself is."""
    return batch.submitted_from if os.path.isdir(batch.submitted_from) else ""
