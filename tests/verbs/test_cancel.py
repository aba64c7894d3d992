from __future__ import annotations

from umpteen.verbs.cancel import CancelCounts, count_ends


def test_count_ends_tells_what_became_of_each_task() -> None:
    chosen = [
        ("cancelled", False),
        ("cancelled", True),  # recorded since the status was read
        ("waiting", True),
        ("waiting", False),
        ("waiting", False),
        ("succeeded", False),
        ("failed", False),
    ]
    assert count_ends(chosen, 4) == CancelCounts(
        cancelled=2, never_starts=2, ended_meanwhile=2, ended_before=4, left=1
    )


def test_count_ends_of_nothing_is_nothing() -> None:
    assert count_ends([], 3) == CancelCounts(0, 0, 0, 3, 0)
