"""Whether an attempt that did not succeed is followed by another, when, and with what.

Takes the rules of a task and the records of its attempts as they stand in files; decides
nothing about slots. Standard library alone.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from umpteen.model.reasons import Reason
from umpteen.model.states import TaskState

__all__ = ["Again", "plan_retry"]

_SHELL_SIGNAL = 128  # and the number of the signal: an exit code of a shell
_MOST_WAIT_S = 60.0
_MOST_MEMORY = 1 << 60
_RETRIED = (TaskState.FAILED.value, TaskState.TIMED_OUT.value)
_REASONS = {"out_of_memory": Reason.OUT_OF_MEMORY, "output_limit": Reason.OUTPUT_LIMIT}


class Again(NamedTuple):
    """The next attempt: after `wait_s` seconds, with `memory` bytes (None: as it was said)."""

    wait_s: float
    memory: int | None
    alone: bool


def plan_retry(
    rules: Sequence[Mapping[str, Any]],
    attempts: Sequence[Mapping[str, Any]],
    memory: int | None,
) -> Again | None:
    """What follows the last of `attempts`; None where nothing does.

    A factor is of what the task said that it needs, else of what it took at most.

    attempts: records that did not succeed, oldest first; each but the last was followed by
    another. The first rule that fits and is not used up counts. Waits double each time, to 60 s
    at most, and are spread by half so that what failed together does not come back together.
    """
    used = [0] * len(rules)
    again = None
    for record in attempts:
        number = _find_rule(rules, used, record)
        if number is None:
            return None
        rule = rules[number]
        wait_s = min(_MOST_WAIT_S, rule.get("wait_s", 1.0) * 2.0 ** min(used[number], 99))
        used[number] += 1
        if rule.get("memory"):
            memory = rule["memory"]
        elif rule.get("memory_factor"):
            known = memory or record.get("peak_kb", 0) * 1024
            memory = int(min(_MOST_MEMORY, known * rule["memory_factor"])) or None
        alone = rule.get("alone", False) or (again is not None and again.alone)
        again = Again(min(_MOST_WAIT_S, wait_s * (0.5 + random.random())), memory, alone)
    return again


def _find_rule(
    rules: Sequence[Mapping[str, Any]], used: Sequence[int], record: Mapping[str, Any]
) -> int | None:
    for number, rule in enumerate(rules):
        if used[number] < rule.get("times", 1) and any(_fits(w, record) for w in rule["when"]):
            return number
    return None


def _fits(condition: str, record: Mapping[str, Any]) -> bool:
    """Whether a record is what the condition names. Nothing fits what was ended on purpose."""
    state, reason = record["state"], record.get("reason", "")
    if state not in _RETRIED or (state == TaskState.TIMED_OUT.value and reason):
        return False
    kind, _, numbers = condition.partition(":")
    if kind == "failed":
        return True
    if kind == "timed_out":
        return bool(state == TaskState.TIMED_OUT.value)
    if kind in _REASONS:
        return bool(reason == _REASONS[kind].value)
    if kind not in ("exit_code", "signal"):
        return False
    number = record.get(kind)
    if kind == "signal" and number is None:  # of a command in a shell, which tells it so
        number = (record.get("exit_code") or 0) - _SHELL_SIGNAL
    low, _, high = numbers.partition("-")
    return number is not None and int(low) <= number <= int(high or low)
