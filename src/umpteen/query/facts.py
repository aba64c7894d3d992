"""What is known of each task, for expressions and tables."""

from __future__ import annotations

from typing import Any

from umpteen.history.history import History
from umpteen.model.record import Record
from umpteen.model.states import STATES
from umpteen.query.liveness import read_status

__all__ = ["read_facts"]


def read_facts(history: History) -> list[dict[str, Any]]:
    """What is known of each task that counts, for expressions and tables.

    name, index, state, tags, parameters; of its newest attempt (None or 0 where there is none)
    attempt, exit_code, signal, reason, seconds, cpu_s, peak_mb, start_s, end_s, stdout_bytes,
    stderr_bytes, and `record` and `token` themselves.
    """
    newest = history.read_newest()
    running = {task.index for task in read_status(history).running}
    facts = []
    for index, task in enumerate(history.read_tasks()):
        if index in history.dropped:
            continue
        token, record = newest.get(index, ("", None))
        shown = record or Record(index, "", 0, "")
        facts.append(
            {
                "name": task.name,
                "index": index,
                "state": "running" if index in running else STATES[history.states[index]],
                "tags": task.tags or [],
                "parameters": task.parameters or {},
                "attempt": shown.attempt,
                "exit_code": shown.exit_code,
                "signal": shown.signal,
                "reason": shown.reason,
                "seconds": shown.seconds,
                "cpu_s": shown.cpu_s,
                "peak_mb": round(shown.peak_kb / 1024, 1),
                "start_s": shown.start_s,
                "end_s": shown.end_s,
                "stdout_bytes": shown.stdout_bytes,
                "stderr_bytes": shown.stderr_bytes,
                "record": record,
                "token": token,
                "task": task,
            }
        )
    return facts
