from __future__ import annotations

import pytest

from umpteen.errors import InputError
from umpteen.model.record import Record
from umpteen.verbs.logs import choose_attempt

ATTEMPTS = [("a", Record(0, "", 1, "failed")), ("b", Record(0, "", 2, "failed"))]


def test_newest_attempt_is_chosen_where_none_is_asked_for() -> None:
    assert choose_attempt("t", ATTEMPTS, None, is_running=False) == ATTEMPTS[1]
    assert choose_attempt("t", ATTEMPTS, None, is_running=True) == ("", None)
    assert choose_attempt("t", [], None, is_running=False) == ("", None)


def test_attempt_is_chosen_by_its_number() -> None:
    assert choose_attempt("t", ATTEMPTS, 1, is_running=False) == ATTEMPTS[0]
    assert choose_attempt("t", ATTEMPTS, 3, is_running=True) == ("", None)
    assert choose_attempt("t", [], 1, is_running=True) == ("", None)


@pytest.mark.parametrize(
    ("number", "is_running", "there"),
    [(3, False, "1, 2"), (4, True, "1, 2, 3")],
)
def test_attempt_that_is_not_there_is_refused_with_those_that_are(
    number: int, there: str, *, is_running: bool
) -> None:
    with pytest.raises(InputError, match=f"t has no attempt {number}") as raised:
        choose_attempt("t", ATTEMPTS, number, is_running=is_running)
    assert raised.value.hint == f"its attempts are {there}"
