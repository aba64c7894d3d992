"""What a job is run with, and who said so.

Takes values from files and flags, gives one `Settings`; knows nothing of where files are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

__all__ = ["DEFAULTS", "ExecutorChoice", "Setting", "Settings", "merge_settings"]


class ExecutorChoice(NamedTuple):
    """Where a job is to run: as a job file, a flag or a program says."""

    name: str
    options: Mapping[str, Any] = {}  # in the executor's own words
    is_fallback: bool = False  # counts only where the store names one that it cannot give


class Setting(msgspec.Struct, frozen=True):
    """One value, and the file or flag that gave it."""

    value: Any
    source: str


class Settings(msgspec.Struct, frozen=True):
    """Everything that is said of a job as a whole; the default is what nobody says."""

    # Tasks at once on a machine; 0: as many as it has cores.
    slots: int = 0
    # The results store; `{name}` is filled in before it is opened.
    address: str = "./umpteen-results/{name}"
    # What the store is opened with. Never stored, as it may have secrets.
    results_options: dict[str, Any] = {}
    # The short name of the executor, and its options in its own words.
    executor: str = "local"
    executor_options: dict[str, Any] = {}
    # The name that results take for the exit code.
    status_file: str = "status_code"
    # Whether what tasks print is put into a store that is no folder while they run.
    live: bool = False
    deadline_s: float | None = None
    # Between SIGTERM and SIGKILL.
    grace_s: float = 10.0
    # Tasks of a batch for an engine; 0: sizes that shrink towards the end.
    batch_size: int = 0
    # Tasks of each template that go first; 0: none.
    canary: int = 0
    # After so many failures nothing more starts; 0: any number.
    max_failures: int = 0
    # Whether what runs is ended then, too.
    fail_fast: bool = False
    # Of each folder that is synced: the folder here, and where it is to be on a machine.
    file_syncs: list[tuple[str, str | None]] = []
    # The same once it is in the store: its digest, where it is to be, and else where it was here
    # if a link is to lead to it from there.
    synced: list[tuple[str, str | None, str]] = []
    # The folder where relative paths of commands begin.
    submitted_from: str = ""
    # Who gave each of the others: a file, a flag, or `default`.
    sources: dict[str, str] = {}


DEFAULTS: dict[str, Any] = msgspec.structs.asdict(Settings())
del DEFAULTS["sources"]


def merge_settings(*layers: Mapping[str, Setting]) -> Settings:
    """Later layers override earlier ones; what none gives has its default."""
    chosen = {key: Setting(value, "default") for key, value in DEFAULTS.items()}
    for given in layers:
        layer = dict(given)
        # Options are those of one executor.
        if "executor" in layer and layer["executor"].value != chosen["executor"].value:
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
