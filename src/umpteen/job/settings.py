"""What a job is run with, and who said so.

Takes values from files and flags, gives one `Settings`; knows nothing of where files are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

__all__ = ["DEFAULTS", "Setting", "Settings", "merge_settings"]


class Setting(msgspec.Struct, frozen=True):
    """One value, and the file or flag that gave it."""

    value: Any
    source: str


class Settings(msgspec.Struct, frozen=True):
    """Everything that is said of a job as a whole.

    slots: tasks at once on a machine. address: the results store, `{name}` filled in;
    results_options: what it is opened with, which is never stored, as it may have secrets.
    executor: short name; executor_options: as its own settings have it. status_file: the
    name that results take for the exit code. live: whether what tasks print is put there while
    they run, where it is no folder. deadline_s and grace_s: seconds. batch_size: tasks
    of a batch for an engine, 0 for sizes that shrink towards the end. canary: tasks of
    each template that go first; max_failures: after so many nothing more starts; 0: neither.
    fail_fast: nor does anything go on then. file_syncs: (folder here, where it is to be on a
    machine) of each that is synced; synced: (digest, where it is to be, else where it was here if
    there is to be a way to it from there) once it is in the store. submitted_from: the folder where
    relative paths of commands begin.
    """

    slots: int
    address: str
    results_options: dict[str, Any]
    executor: str
    executor_options: dict[str, Any]
    status_file: str
    live: bool
    deadline_s: float | None
    grace_s: float
    batch_size: int
    canary: int
    max_failures: int
    fail_fast: bool
    file_syncs: list[tuple[str, str | None]]
    synced: list[tuple[str, str | None, str]]
    submitted_from: str
    sources: dict[str, str]


DEFAULTS: dict[str, Any] = {
    "slots": 0,
    "address": "./umpteen-results/{name}",
    "results_options": {},
    "executor": "local",
    "executor_options": {},
    "status_file": "status_code",
    "live": False,
    "deadline_s": None,
    "grace_s": 10.0,
    "batch_size": 0,
    "canary": 0,
    "max_failures": 0,
    "fail_fast": False,
    "file_syncs": [],
    "synced": [],
    "submitted_from": "",
}


def merge_settings(*layers: Mapping[str, Setting]) -> Settings:
    """Later layers override earlier ones; what none gives has its default."""
    chosen = {key: Setting(value, "default") for key, value in DEFAULTS.items()}
    for given in layers:
        layer = dict(given)
        if "executor" in layer:  # options are those of one executor
            chosen["executor_options"] = Setting({}, "default")
        if "address" in layer:  # and of one place
            chosen["results_options"] = Setting({}, "default")
        if "executor_options" in layer:
            new = layer["executor_options"]
            options = {**chosen["executor_options"].value, **new.value}
            layer["executor_options"] = Setting(options, new.source)
        chosen.update(layer)
    return Settings(
        **{key: setting.value for key, setting in chosen.items()},
        sources={key: setting.source for key, setting in chosen.items()},
    )
