"""What can stop the tool, as programs see it."""

from __future__ import annotations

import pytest

from umpteen.errors import (
    BackendError,
    ErrorCode,
    InputError,
    OutputError,
    PoolError,
    ReaderLeftError,
    SettingsError,
    StoreError,
    UmpteenError,
    nearest_hint,
)

ERRORS = [
    (InputError("m"), ErrorCode.INPUT, 2),
    (InputError("m", code=ErrorCode.NO_TASK), ErrorCode.NO_TASK, 2),
    (SettingsError("m"), ErrorCode.SETTING, 2),
    (BackendError("m"), ErrorCode.BACKEND, 3),
    (StoreError("m"), ErrorCode.STORE, 3),
    (StoreError("m", transient=True), ErrorCode.STORE_TRANSIENT, 3),
    (StoreError("m", damaged=True), ErrorCode.STORE_DAMAGED, 3),
    (OutputError("m"), ErrorCode.OUTPUT, 3),
    (ReaderLeftError(), ErrorCode.READER_LEFT, 141),
    (PoolError("m"), ErrorCode.POOL, 3),
    (UmpteenError("m"), ErrorCode.UNEXPECTED, 2),
]


@pytest.mark.parametrize(("error", "code", "exit_code"), ERRORS)
def test_error_has_a_code_and_the_exit_code_of_that(
    error: UmpteenError, code: ErrorCode, exit_code: int
) -> None:
    assert error.code is code
    assert error.exit_code == code.exit_code == exit_code


def test_error_codes_have_words_of_their_own() -> None:
    words = [code.word for code in ErrorCode]
    assert len(set(words)) == len(words)


def test_error_without_a_hint_has_that_of_its_code() -> None:
    assert UmpteenError("m").hint == "--debug shows where; please report it"
    assert UmpteenError("m", "other").hint == "other"
    assert InputError("m").hint is None


def test_error_as_json_has_its_code_and_place() -> None:
    error = InputError("m", "h", file="a.yaml", line=2, code=ErrorCode.SAME_NAME)
    assert error.to_dict() == {
        "error": "InputError", "code": "same_name", "message": "a.yaml, line 2: m", "hint": "h",
        "file": "a.yaml", "line": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("word", "hint"), [("tset", "did you mean 'test'?"), ("xyz", "valid are other, test")]
)
def test_nearest_hint_names_what_is_like_it_else_all(word: str, hint: str) -> None:
    assert nearest_hint(word, ["test", "other"]) == hint
