"""How the runners of one submission ended, by the queue and by what they left in their logs."""

from __future__ import annotations

import re
from collections.abc import Mapping

from umpteen.errors import EXIT_UNREACHABLE, RUNNER_CRASHED, StoreError
from umpteen.executors.base import BatchState
from umpteen.executors.engine import rank_status
from umpteen.executors.own_runs import ExitStatus, OwnRuns
from umpteen.executors.slurm.answers import QueueLine, read_state
from umpteen.executors.slurm.cluster import Cluster, Handle, QueueAnswer
from umpteen.executors.slurm.script import NO_PYTHON, UNSEEN
from umpteen.model.complaint import build_complaint
from umpteen.store.address import open_store
from umpteen.store.layout import CANCEL, log_key

__all__ = ["SlurmRuns", "explain_end"]

_SAID_BYTES = 8000
_GOES_ON = "umpteen collect submits what is left, umpteen cancel ends the job"
_ENDS = {
    "TIMEOUT": "its time limit was reached",
    "OUT_OF_MEMORY": "it took more memory than it had asked for",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not boot",
    "PREEMPTED": "another job had its place",
    "DEADLINE": "its deadline was reached",
}


class SlurmRuns(OwnRuns):
    """The elements of arrays that this process submitted."""

    def __init__(self, cluster: Cluster, address: str, handles: Mapping[str, Handle]) -> None:
        self._cluster, self._address = cluster, address
        self._all = list(handles.values())
        self._open = dict(handles)  # those whose end was not looked at
        self._worst = ExitStatus(0)
        self._seen: QueueAnswer | None = None  # the answer that was looked at last

    def exit_status(self) -> ExitStatus:
        """The worst of those that have ended. Who lives is for the executor's poll to say."""
        queue = self._cluster.read_queue(self._all)
        if queue is None or queue is self._seen:
            return self._worst
        self._seen = queue
        forgotten = {
            batch: handle
            for batch, handle in self._open.items()
            if queue.find(handle) is None and queue.find_state(handle) == BatchState.ENDED
        }
        if forgotten:  # which only the accounting still knows
            self._look(forgotten, self._cluster.list_forgotten(forgotten.values()))
            self._open = {b: h for b, h in self._open.items() if b not in forgotten}
        self._look(dict(self._open), queue)
        return self._worst

    def _look(self, handles: Mapping[str, Handle], queue: QueueAnswer) -> None:
        """Judge those of these that have ended, as the queue or the accounting says."""
        for batch, handle in handles.items():
            line = queue.find(handle)
            if line and read_state(line.state) == BatchState.ENDED:
                self._open.pop(batch)
                if line.state != "COMPLETED":
                    ended = self._judge(batch, handle, line)
                    self._worst = max(self._worst, ended, key=rank_status)

    def _judge(self, batch: str, handle: Handle, line: QueueLine) -> ExitStatus:
        said, is_cancelled = "", False
        try:
            store = open_store(self._address)
            content = store.read(log_key(handle.mark, batch)) or b""
            said = content[-_SAID_BYTES:].decode(errors="replace")
            is_cancelled = store.read(CANCEL) is not None
        except StoreError:
            pass  # the watch says what is wrong with it
        return explain_end(line, handle, said, is_cancelled=is_cancelled)


def explain_end(line: QueueLine, handle: Handle, said: str, *, is_cancelled: bool) -> ExitStatus:
    """What an element's end means. said: in its log. is_cancelled: the job is, by umpteen."""
    name = f"the Slurm job {line.job}_{handle.element}"
    where = f"{name} on {line.node}" if line.node else name
    if line.state == "CANCELLED":
        if is_cancelled:
            return ExitStatus(0)
        return _refuse(f"{name} was cancelled in Slurm", _GOES_ON)
    if line.exit_code == UNSEEN:
        return _refuse(
            f"{where} does not see the results, or may not write there",
            "use a folder that all nodes share: --results",
        )
    if line.exit_code == NO_PYTHON:
        return _refuse(
            f"{where} finds no python3", "have it on the PATH: it runs with your environment"
        )
    if line.exit_code == EXIT_UNREACHABLE and (error := _find_error(said)):
        return _refuse(f"{where}: {error}", _find_hint(said))
    if line.state in _ENDS:
        return ExitStatus(RUNNER_CRASHED, f"{where} was ended: {_ENDS[line.state]}")
    return ExitStatus(line.exit_code or RUNNER_CRASHED, said.strip() or f"{where} failed")


def _refuse(message: str, hint: str) -> ExitStatus:
    return ExitStatus(EXIT_UNREACHABLE, build_complaint(message, hint))


def _find_error(said: str) -> str:
    found = re.findall(r"^error: (.*)$", said, re.MULTILINE)
    return found[-1] if found else ""


def _find_hint(said: str) -> str:
    found = re.findall(r"^hint: (.*)$", said, re.MULTILINE)
    return found[-1] if found else ""
