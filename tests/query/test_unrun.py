"""Failures as a watch takes them, once each."""

from __future__ import annotations

from collections.abc import Callable

from umpteen.history.history import History
from umpteen.query.failure_feed import FailureFeed
from umpteen.query.unrun import read_ended


def test_feed_gives_each_failure_once_and_counts_the_rest(history: History) -> None:
    feed = FailureFeed()
    assert [failure.name for failure in feed.take_failed(history, 5)] == ["train-1"]
    assert feed.take_failed(history, 5) == []
    assert [(group.tasks, group.state) for group in feed.unrun.list_groups()] == [(1, "skipped")]


def test_feed_of_all_has_what_never_ran_as_well(history: History) -> None:
    feed = FailureFeed()
    assert [failure.name for failure in feed.take_all(history, 5)] == ["train-1", "report"]
    assert feed.unrun.list_groups() == []


def test_ended_tasks_beyond_those_asked_for_are_counted(read: Callable[[], History]) -> None:
    ended = read_ended(read(), 0)
    assert (ended.failures, ended.failed, len(ended.unrun)) == ([], 1, 1)
