"""When another attempt follows, after how long, and with what."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umpteen.model.reasons import Reason
from umpteen.model.retries import Again, plan_retry

FAILED: dict[str, Any] = {"state": "failed", "exit_code": 1}
KILLED: dict[str, Any] = {"state": "failed", "signal": 9}
TIMED_OUT: dict[str, Any] = {"state": "timed_out", "signal": 15}
NO_MEMORY: dict[str, Any] = {**KILLED, "reason": Reason.OUT_OF_MEMORY.value}
TOO_MUCH: dict[str, Any] = {"state": "failed", "signal": 15, "reason": Reason.OUTPUT_LIMIT.value}


def rule(*when: str, **more: Any) -> dict[str, Any]:
    return {"when": list(when), **more}


def plan(rules: list[dict[str, Any]], *attempts: dict[str, Any], memory: int = 0) -> Again:
    again = plan_retry(rules, attempts, memory or None)
    assert again is not None
    return again


# --- conditions -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "fits"),
    [
        ("failed", [FAILED, KILLED, TIMED_OUT, NO_MEMORY, TOO_MUCH]),
        ("timed_out", [TIMED_OUT]),
        ("out_of_memory", [NO_MEMORY]),
        ("output_limit", [TOO_MUCH]),
        ("exit_code:1", [FAILED]),
        ("exit_code:0-9", [FAILED]),
        ("exit_code:1-1", [FAILED]),
        ("exit_code:2-9", []),
        ("exit_code:0", []),
        ("signal:9", [KILLED, NO_MEMORY]),
        ("signal:10-15", [TIMED_OUT, TOO_MUCH]),
        ("signal:1", []),
        ("of a later version:9", []),
    ],
)
def test_retry_follows_what_its_condition_names(condition: str, fits: list[dict[str, Any]]) -> None:
    attempts = [FAILED, KILLED, TIMED_OUT, NO_MEMORY, TOO_MUCH]
    found = [attempt for attempt in attempts if plan_retry([rule(condition)], [attempt], None)]
    assert found == fits


@pytest.mark.parametrize(
    "record",
    [
        {"state": "succeeded", "exit_code": 0},
        {"state": "cancelled", "signal": 15},
        {"state": "skipped"},
        {"state": "waiting", "signal": 15, "reason": Reason.INTERRUPTED.value},
        {"state": "timed_out", "signal": 15, "reason": Reason.DEADLINE.value},
    ],
)
def test_retry_never_follows_what_was_ended_on_purpose(record: dict[str, Any]) -> None:
    everything = rule("failed", "timed_out", "exit_code:0-255", "signal:1-64", times=9)
    assert plan_retry([everything], [record], None) is None


def test_retry_follows_a_failure_for_whatever_reason() -> None:
    killer = {"state": "failed", "reason": Reason.KILLED_ITS_RUNNER.value}
    assert plan_retry([rule("failed")], [killer], None)


def test_retry_needs_one_condition_of_several() -> None:
    rules = [rule("timed_out", "exit_code:75", "signal:9")]
    assert plan_retry(rules, [KILLED], None)
    assert plan_retry(rules, [FAILED], None) is None


@pytest.mark.parametrize(("rules", "attempts"), [([], [FAILED]), ([rule("failed")], [])])
def test_retry_without_rule_or_attempt_is_none(rules: list[Any], attempts: list[Any]) -> None:
    assert plan_retry(rules, attempts, None) is None


# --- how often --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_times", "retries"), [({}, 1), ({"times": 1}, 1), ({"times": 4}, 4)]
)
def test_retry_follows_as_often_as_is_said(given_times: dict[str, int], retries: int) -> None:
    rules = [rule("failed", **given_times)]
    followed = [bool(plan_retry(rules, [FAILED] * made, None)) for made in range(1, 7)]
    assert followed == [made <= retries for made in range(1, 7)]


def test_retry_rules_are_used_up_one_by_one() -> None:
    rules = [rule("exit_code:1", times=1), rule("failed", times=2)]
    assert plan_retry(rules, [FAILED] * 3, None)
    assert plan_retry(rules, [FAILED] * 4, None) is None
    assert plan_retry(rules, [KILLED] * 2, None)
    assert plan_retry(rules, [KILLED] * 3, None) is None


def test_retry_each_rule_counts_its_own_failures() -> None:
    rules = [rule("timed_out"), rule("exit_code:1", times=2)]
    assert plan_retry(rules, [FAILED, TIMED_OUT, FAILED], None)
    assert plan_retry(rules, [FAILED, TIMED_OUT, TIMED_OUT], None) is None
    assert plan_retry(rules, [TIMED_OUT, FAILED, FAILED, FAILED], None) is None


@given(st.lists(st.tuples(st.sampled_from(["failed", "timed_out", "signal:9", "exit_code:1"]),
                          st.integers(1, 3)), max_size=4),
       st.lists(st.sampled_from([FAILED, KILLED, TIMED_OUT]), max_size=14))  # fmt: skip
def test_retry_ends_after_no_more_than_all_rules_allow(
    said: list[tuple[str, int]], attempts: list[dict[str, Any]]
) -> None:
    rules = [rule(condition, times=times) for condition, times in said]
    followed = [bool(plan_retry(rules, attempts[:made], None)) for made in range(1, len(attempts))]
    assert sum(followed) <= sum(times for _, times in said)
    assert followed == sorted(followed, reverse=True)


# --- waits ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wait", "made", "middle_s"),
    [
        ({}, 1, 1.0),
        ({}, 2, 2.0),
        ({}, 5, 16.0),
        ({"wait_s": 3.0}, 2, 6.0),
        ({"wait_s": 0.5}, 1, 0.5),
    ],
)
def test_retry_waits_double_and_are_spread_by_half(
    wait: dict[str, float], made: int, middle_s: float
) -> None:
    rules = [rule("failed", times=100, **wait)]
    waits_s = [plan(rules, *[FAILED] * made).wait_s for _ in range(300)]
    assert middle_s * 0.5 <= min(waits_s) < middle_s * 0.7
    assert middle_s * 1.3 < max(waits_s) <= middle_s * 1.5


@pytest.mark.parametrize("made", [7, 20, 2000])
def test_retry_never_waits_more_than_a_minute(made: int) -> None:
    waits_s = [plan([rule("failed", times=5000)], *[FAILED] * made).wait_s for _ in range(100)]
    assert 30 <= min(waits_s) < max(waits_s) <= 60


def test_retry_at_once_where_no_wait_is_asked_for() -> None:
    assert plan([rule("failed", wait_s=0, times=9)], *[FAILED] * 5).wait_s == 0


def test_retry_waits_of_one_rule_do_not_lengthen_those_of_another() -> None:
    rules = [rule("timed_out", times=9), rule("failed", wait_s=0.5)]
    assert plan(rules, *[TIMED_OUT] * 6, FAILED).wait_s <= 0.75


# --- what it then needs -------------------------------------------------------------------------


def test_retry_memory_grows_by_the_factor_each_time() -> None:
    rules = [rule("out_of_memory", memory_factor=1.5, times=3)]
    assert [plan(rules, *[NO_MEMORY] * made, memory=100).memory for made in (1, 2, 3)] == [
        150, 225, 337
    ]  # fmt: skip


def test_retry_memory_grows_to_no_number_that_breaks_anything() -> None:
    rules = [rule("failed", memory_factor=2, times=5000)]
    assert plan(rules, *[FAILED] * 2000, memory=100).memory == 1 << 60


def test_retry_memory_stays_where_the_rule_says_nothing_of_it() -> None:
    assert plan([rule("failed")], FAILED, memory=100).memory == 100


@pytest.mark.parametrize(("said", "then"), [(0, 2048), (5000, 10_000)])
def test_retry_factor_is_of_what_was_said_else_of_what_it_took(said: int, then: int) -> None:
    rules = [rule("out_of_memory", memory_factor=2)]
    assert plan(rules, {**NO_MEMORY, "peak_kb": 1}, memory=said).memory == then


def test_retry_factor_of_nothing_known_is_nothing_said() -> None:
    assert plan([rule("failed", memory_factor=2)], FAILED).memory is None


def test_retry_memory_that_is_named_stands_and_grows_from_there() -> None:
    rules = [rule("exit_code:1", memory=500), rule("out_of_memory", memory_factor=2)]
    assert plan(rules, FAILED).memory == 500
    assert plan(rules, FAILED, NO_MEMORY, memory=100).memory == 1000


def test_retry_memory_grown_once_is_kept_by_later_retries() -> None:
    rules = [rule("out_of_memory", memory_factor=2), rule("failed")]
    assert plan(rules, NO_MEMORY, FAILED, memory=100).memory == 200


def test_retry_alone_is_kept_by_later_retries() -> None:
    rules = [rule("out_of_memory", alone=True), rule("failed", times=2)]
    assert not plan(rules, FAILED).alone
    assert plan(rules, FAILED, NO_MEMORY).alone
    assert plan(rules, FAILED, NO_MEMORY, FAILED).alone
