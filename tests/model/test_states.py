"""States and their order, records as lines, digests."""

from __future__ import annotations

import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umpteen.model.command import build_digest, build_environment, shell_command
from umpteen.model.record import Record, parse_record
from umpteen.model.states import TaskState, tell_end

STATES = list(TaskState)
FINAL = {"succeeded", "failed", "timed_out", "cancelled", "skipped"}
COUNT = st.integers(0, 2**53)


def seconds(places: int) -> st.SearchStrategy[float]:
    """What a lane writes: rounded."""
    return st.integers(0, 10**10).map(lambda number: number / 10**places)


RECORDS = st.builds(
    Record,
    task=st.integers(0, 10**7),
    digest=st.text("0123456789abcdef", min_size=16, max_size=16),
    attempt=st.integers(1, 1000),
    state=st.sampled_from([state.value for state in STATES]),
    exit_code=st.integers(0, 255),
    signal=st.none(),
    start_s=seconds(3),
    end_s=seconds(3),
    seconds=seconds(4),
    cpu_s=seconds(4),
    peak_kb=COUNT,
    slot=st.integers(0, 10_000),
    stdout_bytes=COUNT,
    stderr_bytes=COUNT,
    outputs=st.sampled_from(["", "attempts/2-0123456789ab"]),
    reason=st.text(max_size=300),
    machine=st.text(max_size=20),
)


def test_task_state_final_ones_are_those_of_the_design() -> None:
    assert {state.value for state in STATES if state.is_final} == FINAL


@given(st.sampled_from(STATES), st.sampled_from(STATES))
def test_task_state_that_is_final_is_followed_by_none(first: TaskState, second: TaskState) -> None:
    assert not (first.is_final and first.may_become(second))


@pytest.mark.parametrize(
    ("state", "followers"),
    [
        ("waiting", {"running", "cancelled", "skipped"}),
        ("running", {"waiting", "succeeded", "failed", "timed_out", "cancelled"}),
    ],
)
def test_task_state_open_one_has_its_followers(state: str, followers: set[str]) -> None:
    found = {other.value for other in STATES if TaskState(state).may_become(other)}
    assert found == followers


@given(st.lists(st.sampled_from(STATES), max_size=30))
def test_task_state_outcome_of_a_command_needs_that_it_ran(wished: list[TaskState]) -> None:
    state, before = TaskState.WAITING, None
    for following in wished:
        if state.may_become(following):
            state, before = following, state
    if state in (TaskState.SUCCEEDED, TaskState.FAILED, TaskState.TIMED_OUT):
        assert before is TaskState.RUNNING


@given(RECORDS)
def test_record_line_gives_the_record_back(record: Record) -> None:
    line = record.to_line()
    assert "\n" not in line
    assert parse_record(json.loads(line)) == record


@given(RECORDS, st.integers(1, 64))
def test_record_of_a_signal_gives_it_back(record: Record, number: int) -> None:
    killed = record._replace(exit_code=None, signal=number)
    assert parse_record(json.loads(killed.to_line())) == killed


@given(RECORDS)
def test_record_dict_gives_the_record_back_and_leaves_defaults_out(record: Record) -> None:
    found = record.to_dict()
    assert parse_record(found) == record
    assert all(value != Record._field_defaults.get(key, ...) for key, value in found.items())


def test_record_of_a_later_version_is_read_without_what_is_unknown() -> None:
    line = {"task": 1, "digest": "d", "attempt": 2, "state": "failed", "colour": "red"}
    assert parse_record(line) == Record(1, "d", 2, "failed")


@pytest.mark.parametrize("state", [state.value for state in STATES])
def test_record_succeeded_only_in_that_state(state: str) -> None:
    assert Record(0, "", 1, state, exit_code=0).succeeded == (state == "succeeded")


def test_digest_differs_in_all_that_makes_a_task_another() -> None:
    forms = [
        build_digest("a b", None, None),
        build_digest(["a", "b"], None, None),
        build_digest(["a b"], None, None),
        build_digest("a b", {"A": "1"}, None),
        build_digest("a b", {"A": "2"}, None),
        build_digest("a b", None, "."),
        build_digest("a b", None, ""),
    ]
    assert len(set(forms)) == len(forms)
    assert all(len(form) == 16 and int(form, 16) >= 0 for form in forms)


def test_digest_order_of_variables_does_not_count() -> None:
    first = build_digest("a", {"A": "1", "B": "2"}, None)
    assert first == build_digest("a", {"B": "2", "A": "1"}, None)
    assert build_digest("a", {}, None) == build_digest("a", None, None)


def test_digest_stays_what_it_is_in_stores_that_exist() -> None:
    assert build_digest("echo a", None, None) == "aea8f60b82641aeb"


def test_environment_keeps_odd_values_whole() -> None:
    found = build_environment("j=1", "a\nb", 3, 2, 1, "/r s", "file:///o\udcff")
    assert b"UMPTEEN_JOB=j=1" in found
    assert b"UMPTEEN_TASK=a\nb" in found
    assert b"RESULTS_DIR=/r s" in found
    assert b"UMPTEEN_OUTPUT=file:///o\xff" in found


def test_shell_command_of_a_text_is_itself() -> None:
    assert shell_command("a  $b 'c") == "a  $b 'c"


@given(st.lists(st.text(), min_size=1))
def test_shell_command_of_a_list_has_its_words(words: list[str]) -> None:
    assert shlex.split(shell_command(words)) == words


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("failed", "failed"),
        ("timed_out", "timed out"),
        ("cancelled", "was cancelled"),
        ("skipped", "was skipped"),
        ("succeeded", "succeeded"),
    ],
)
def test_end_is_told_as_a_sentence_has_it(state: str, told: str) -> None:
    assert tell_end(state) == told
