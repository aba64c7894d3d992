"""Which task is which, without any store."""

from __future__ import annotations

from umpteen.job.spec import Task
from umpteen.planning.matching import Change, match_tasks

A, B, C = Task("a", "0", automatic=True), Task("b", "1", automatic=True), Task("c", "c")


def test_matching_of_a_new_job_adds_all_as_they_are() -> None:
    given = [Task("a"), Task("b", "x")]
    matched = match_tasks(given, [], set())
    assert matched.added is matched.tasks is given
    assert (list(matched.indices), matched.is_plain) == ([0, 1], True)


def test_matching_of_tasks_that_are_sure_to_be_the_same_looks_at_none() -> None:
    given = [Task("a"), Task("b")]
    assert match_tasks(given, None, set()) == (given, range(2), [], [], [], [], True)


def test_matching_knows_unnamed_tasks_by_their_content() -> None:
    matched = match_tasks([Task("new"), Task("a"), Task("b")], [A, B], set())
    assert [task.name for task in matched.tasks] == ["2", "0", "1"]
    assert list(matched.indices) == [2, 0, 1]
    assert [task.command for task in matched.added] == ["new"]
    assert not matched.is_plain


def test_matching_tells_what_changed_from_what_is_only_updated() -> None:
    now = [Task("z", "c"), Task("d", "d", tags=["t"])]
    before = [C, Task("d", "d")]
    matched = match_tasks(now, before, set())
    assert matched.changes == [Change(0, C, now[0])]
    assert matched.updates == [Change(1, before[1], now[1])]
    assert not matched.added


def test_matching_restores_what_was_dropped_and_is_as_it_was() -> None:
    matched = match_tasks([C], [C], {0})
    assert (matched.restored, matched.updates) == ([0], [Change(0, C, C)])


def test_matching_gives_no_name_twice() -> None:
    matched = match_tasks([Task("x", "1"), Task("y"), Task("z")], [C], set())
    assert [task.name for task in matched.tasks] == ["1", "2", "3"]
    assert [task.automatic for task in matched.tasks] == [False, True, True]


def test_matching_takes_another_environment_or_folder_for_a_change() -> None:
    before = [Task("c", "e", env={"A": "1"}), Task("c", "f", cwd="x")]
    now = [Task("c", "e", env={"A": "2"}), Task("c", "f", cwd="y")]
    assert [change.index for change in match_tasks(now, before, set()).changes] == [0, 1]
