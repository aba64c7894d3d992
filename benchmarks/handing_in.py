"""Reads a job file, plans it and hands it in, all as `umpteen run` does, but runs nothing.

    python -m benchmarks.handing_in FILE [--results ADDRESS]

The store is `umpteen-results/NAME` in the current folder, if no other is named. The handles are
those of a runner on this machine that has ended.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from umpteen.executors.base import (
    Abilities,
    BatchState,
    Executor,
    OnProgress,
    SubmitRequest,
    ignore_progress,
)
from umpteen.executors.own_process import build_handle
from umpteen.formats import read_job
from umpteen.formats.flags import JobFlags
from umpteen.submission.settings import resolve_settings
from umpteen.verbs.run import submit

EXECUTOR = "benchmarks.handing_in:NowhereExecutor"


class NowhereExecutor(Executor):
    """Takes batches and leaves them. Readers of the store take it for the local one."""

    name = "local"
    abilities = Abilities(
        dependencies=False, capabilities=False, reconnect=False, is_engine=False,
        batches_most=0, start_up_s=0.0,
    )  # fmt: skip

    def submit(
        self, request: SubmitRequest, on_progress: OnProgress = ignore_progress
    ) -> dict[str, str]:
        """Handles, and nothing started."""
        del on_progress
        return dict.fromkeys(request.batches, build_handle(os.urandom(6).hex()))

    def poll(self, handles: Sequence[str]) -> dict[str, BatchState]:
        """Nothing lives."""
        return dict.fromkeys(handles, BatchState.ENDED)

    def wake(self, handles: Sequence[str]) -> None:
        """Nothing to end."""


def main() -> None:
    files, results = sys.argv[1:], None
    if "--results" in files:
        place = files.index("--results")
        results = files[place + 1]
        del files[place : place + 2]
    flags = JobFlags(slots=2, executor=EXECUTOR, address=results)
    handle = submit(resolve_settings(read_job(files, flags=flags), os.getcwd()))
    print(handle.summary.total, len(handle.batches))


if __name__ == "__main__":
    main()
