"""The batch file: what one runner is given to run."""

from __future__ import annotations

import collections
import os
import re
from collections.abc import Mapping
from typing import Any

from umpteen.model.command import build_digest
from umpteen.model.forms import parse_ranges

__all__ = ["BatchView"]

_MADE_UP = re.compile(r"/tmp/[0-9a-f]{32}/?")  # by a split, of `sc` or ours


class BatchView:
    """One batch file as the runner and its lanes read it."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        own = content["umpteen"]
        self.job: str = own["job"]
        self.batch: str = own["batch"]
        self.slots: int = content["nprocs"]
        self.runs: list[dict[str, Any]] = content["runs"]
        self._folders: collections.Counter[str] | None = None
        self.names: list[str] = own["names"]
        self.indices = [index for part in parse_ranges(own["indices"]) for index in part]
        self.extras: dict[str, dict[str, Any]] = own.get("extras", {})
        self.common: dict[str, Any] = own.get("common", {})
        self.before: dict[str, list[Any]] = own.get("attempts", {})
        self.status_file: str = own.get("status_file", "status_code")
        self.grace_s: float = own.get("grace_s", 10.0)
        self.submitted_from: str = own.get("cwd") or ""
        self.synced: list[tuple[str, str | None, str]] = own.get("synced", [])
        self.deadline_s: float | None = own.get("deadline_s")
        # Of a file from elsewhere: addresses of outputs as they stand there, where they differ.
        self.written: dict[str, str] | None = own.get("written")
        self.has_graph: bool = own.get("graph", False)
        self.after: list[int] = own.get("after", [])
        self.barriers: list[dict[str, str]] = own.get("barriers", [])
        self.waits: list[str] = own.get("waits", [])
        self.has_priorities: bool = own.get("priorities", False)
        self.max_failures: int = own.get("max_failures", 0)
        self.fail_fast: bool = own.get("fail_fast", False)
        self.live: bool = own.get("live", False)

    def terms_of(self, position: int) -> dict[str, Any]:
        """What a task has beside its command and its place."""
        return self.extras.get(str(position), self.common) if self.extras else self.common

    def has_own_folder(self, position: int) -> bool:
        """Whether a task says where it runs, wherever the job was handed in from."""
        return os.path.isabs(os.path.expanduser(self.terms_of(position).get("cwd") or ""))

    def digest(self, position: int) -> str:
        """What a task is known by."""
        extra = self.terms_of(position)
        command = extra.get("argv") or self.runs[position]["cmd"]
        return build_digest(command, extra.get("env"), extra.get("cwd"))

    def is_made_up(self, folder: str) -> bool:
        """Whether a folder for results is one that a split chose, and of one run alone.

        Nobody can look for such a folder later; one that somebody chose stays.
        """
        if not _MADE_UP.fullmatch(folder):
            return False
        if self._folders is None:
            self._folders = collections.Counter(
                str(run.get("local_results_dir")).rstrip("/") for run in self.runs
            )
        return self._folders[folder.rstrip("/")] == 1

    def output(self, position: int) -> str:
        """The address of the folder of a task's outputs."""
        output: str = self.runs[position]["remote_output_path"]
        return output
