"""The settings that a job was submitted with last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from umpteen.history.files import Submission
from umpteen.history.history import History

__all__ = ["list_left_out", "read_settings"]


def read_settings(history: History) -> dict[str, Any]:
    """The settings of the last submission, by the names of Settings."""
    given = dict(history.job.get("settings", {}))
    if newest := _find_newest(history):
        known = {"cwd": "submitted_from"}
        given.update({known.get(key, key): value for key, value in newest.settings.items()})
        options = history.files.read_options(newest)
        given.update(executor=newest.executor, executor_options=options)
    return given


def list_left_out(history: History, options: Mapping[str, Any]) -> list[str]:
    """Names of options that the executor was given and the store does not keep; none where
    `options` are others than the store has.
    """
    newest = _find_newest(history)
    if newest is None or not newest.left_out:
        return []
    return newest.left_out if options == history.files.read_options(newest) else []


def _find_newest(history: History) -> Submission | None:
    return next((each for each in reversed(history.hand_ins) if each.executor), None)
