"""The memory that the next attempt of a task asks for."""

from __future__ import annotations

from typing import Any

import pytest

from umpteen.job.spec import Retry, TaskOptions
from umpteen.planning.needs import find_memory

KILLED = {"state": "failed", "reason": "out of memory", "exit_code": None, "peak_kb": 1000}
DOUBLE = TaskOptions(memory=100, retries=[Retry(["out_of_memory"], times=2, memory_factor=2.0)])


@pytest.mark.parametrize(
    ("options", "tries", "memory"),
    [
        (None, [KILLED], 0),
        (TaskOptions(memory=100), [KILLED], 100),
        (DOUBLE, [], 100),
        (DOUBLE, [KILLED], 200),
        (DOUBLE, [KILLED] * 2, 400),
        (DOUBLE, [KILLED] * 3, 100),  # no rule is left
        (TaskOptions(retries=[Retry(["failed"], memory=500)]), [KILLED], 500),
        (TaskOptions(memory=900, retries=[Retry(["failed"], memory=500)]), [KILLED], 900),
    ],
)
def test_memory_is_what_rules_say_after_the_attempts(
    options: TaskOptions | None, tries: list[dict[str, Any]], memory: int
) -> None:
    assert find_memory(options, tries) == memory
