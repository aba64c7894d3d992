"""What a task waits for, as one number."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from umpteen.model.dependencies import FREE, Behind, link, meets


@given(st.integers(0, 1 << 30))
def test_behind_tells_one_task_from_a_barrier(number: int) -> None:
    one, barrier = Behind(link(number)), Behind(number)
    assert (one.task, one.barrier) == (number, None)
    assert (barrier.task, barrier.barrier) == (None, number)


def test_free_is_behind_neither() -> None:
    assert (Behind(FREE).task, Behind(FREE).barrier) == (None, None)


def test_outcomes_are_met_by_the_states_that_they_name() -> None:
    states = ["succeeded", "failed", "timed_out", "cancelled", "skipped"]
    assert [state for state in states if meets("any", state)] == states
    assert [state for state in states if meets("succeeded", state)] == ["succeeded"]
    assert [state for state in states if meets("failed", state)] == states[1:4]
