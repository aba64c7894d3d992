from __future__ import annotations

import pytest

from umpteen.errors import BackendError, SettingsError, StoreError
from umpteen.model.complaint import build_complaint
from umpteen.verbs.runner_end import RunnerEnds


@pytest.mark.parametrize("returned", [0, None])
def test_end_that_is_none_or_well_is_passed_over(returned: int | None) -> None:
    ends = RunnerEnds()
    for _ in range(20):
        ends.add(returned, "whatever", 3)


def test_end_by_the_store_is_raised_with_the_words_of_the_runner() -> None:
    said = "a warning\n" + build_complaint("the store is full", "make room") + "\n"
    with pytest.raises(StoreError) as raised:
        RunnerEnds().add(StoreError.exit_code, said, 1)
    assert (raised.value.message, raised.value.hint) == ("the store is full", "make room")


def test_end_by_settings_is_no_wrong_use_of_what_was_submitted() -> None:
    with pytest.raises(BackendError) as raised:
        RunnerEnds().add(SettingsError.exit_code, build_complaint("no such option", ""), 1)
    assert (raised.value.message, raised.value.hint) == ("no such option", None)


def test_end_without_a_complaint_says_what_is_known() -> None:
    with pytest.raises(StoreError, match="the runner gave up on the store"):
        RunnerEnds().add(StoreError.exit_code, "", 1)


@pytest.mark.parametrize(
    ("returned", "said", "why"),
    [
        (-9, "", "killed by signal 9"),
        (70, "", "exit code 70"),
        (70, "Traceback\nMemoryError", "MemoryError"),
    ],
)
def test_deaths_in_a_row_are_raised_at_the_fifth(returned: int, said: str, why: str) -> None:
    ends = RunnerEnds()
    for _ in range(4):
        ends.add(returned, said, 3)
    with pytest.raises(BackendError, match=f"the runner died 5 times: {why}"):
        ends.add(returned, said, 3)


def test_deaths_are_counted_anew_where_a_task_ended_between_them() -> None:
    ends = RunnerEnds()
    for waiting in range(20, 0, -1):
        ends.add(-9, "", waiting)
