"""The folders of this user for what umpteen keeps and is told, as the XDG base directories say."""

from __future__ import annotations

import os

from umpteen.model.variables import CONFIG_HOME, DATA_HOME

__all__ = ["config_folder", "data_folder"]


def data_folder() -> str:
    """What umpteen keeps; a place that cannot be, where this user has no home."""
    return _find(DATA_HOME, "~/.local/share")


def config_folder() -> str:
    """What this user has set; a place that cannot be, where this user has no home."""
    return _find(CONFIG_HOME, "~/.config")


def _find(variable: str, usual: str) -> str:
    given = os.environ.get(variable, "")
    base = given if os.path.isabs(given) else os.path.expanduser(usual)
    return os.path.join(base if os.path.isabs(base) else os.devnull, "umpteen")
