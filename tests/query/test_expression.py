"""Expressions that choose tasks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umpteen.errors import InputError
from umpteen.job.spec import Task
from umpteen.model.record import Record
from umpteen.query.expression import PLAN_FIELDS, compile_where
from umpteen.query.facts import TaskFacts

PARAMETERS = {"lr": "0.10", "kind": "linear", "name": "p"}


def facts(parameters: dict[str, str] = PARAMETERS) -> TaskFacts:
    task = Task("true", "lr=0.1,seed=7", tags=["paper", "big"], parameters=parameters)
    ended = Record(3, "", 2, "failed", exit_code=137, seconds=12.5, peak_kb=4000 * 1024)
    return TaskFacts(task, 3, "failed", "token", ended)


@pytest.mark.parametrize(
    "text",
    [
        "state=failed",
        "state==failed and exit_code = 137",
        "exit_code>=137 and exit_code<=137",
        "seconds>12 and not seconds>13",
        "lr=0.1",
        "lr<1e0",
        "param.lr = .1",
        "name=lr=0.1,seed=7",
        "name~lr=*",
        "name~'*seed=?'",
        "param.name=p",
        "kind='linear'",
        'kind="linear" and index!=4',
        "tag=paper and tag=big",
        "tags~pap*",
        "tag!=small",
        "not (state=succeeded or index<3)",
        "state=succeeded or state=failed and exit_code=137",
        "signal!=9",
        "reason=''",
        "kind>k",
        "not not index=3",
    ],
)
def test_where_holds(text: str) -> None:
    assert compile_where(text)(facts())


@pytest.mark.parametrize(
    "text",
    [
        "state=succeeded",
        "lr>0.1",
        "tag!=paper",
        "signal=9",
        "signal<9",
        "signal~*",
        "name~seed*",
        "kind=LINEAR",
        "(state=failed or index=3) and exit_code=1",
        "state=failed and exit_code=1 or index=9",
        "seed=7",
    ],
)
def test_where_does_not_hold(text: str) -> None:
    assert not compile_where(text)(facts())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at the start: here should be a field or a parameter"),
        ("state", "after 'state': here should be one of = != < <= > >= ~"),
        ("state failed", "after 'state': here should be one of"),
        ("lr=", "after 'lr=': here should be a value"),
        ("lr=1 lr=2", "after 'lr=1': here should be 'and', 'or' or the end"),
        ("(lr=1", "after '(lr=1': here should be ')'"),
        ("lr=1)", "after 'lr=1': here should be 'and', 'or' or the end"),
        ("lr=1 and", "after 'lr=1 and': here should be a field"),
        ("not", "after 'not'"),
        ("x='a", "after 'x=': here should be a value"),
        ("state=fail", "after 'state=': there is no state 'fail'"),
    ],
)
def test_where_wrong_syntax_names_the_place(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        compile_where(text)
    assert message in str(caught.value)


def test_where_of_a_parameter_that_no_task_has_is_refused() -> None:
    where = compile_where("lr<1 and sed=3")
    assert where.check([{"lr": "1"}, None, {"sed": "2"}]) is where
    with pytest.raises(InputError) as caught:
        where.check([{"lr": "1", "seed": "3"}])
    assert "no task has 'sed'" in str(caught.value)
    assert str(caught.value.hint).startswith("did you mean 'seed'")


def test_where_before_a_run_knows_no_outcome() -> None:
    assert compile_where("tag=paper and index=3", PLAN_FIELDS)(facts())
    with pytest.raises(InputError, match="'seconds' is not known before a task has run") as caught:
        compile_where("index=3 and seconds>1", PLAN_FIELDS)
    assert caught.value.hint == "known are name, index, tag and the parameters"


@pytest.mark.parametrize("text", ["state=failed", "lr=", "(lr=1", "exit_code=137"])
def test_where_before_a_run_hints_at_nothing_that_is_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        compile_where(text, PLAN_FIELDS)
    hint = str(caught.value.hint)
    if hint.startswith("write it as: "):
        compile_where(hint.removeprefix("write it as: "), PLAN_FIELDS)
    assert "state" not in hint


@pytest.mark.parametrize("text", ["(" * 3000 + "lr=1" + ")" * 3000, "not " * 3000 + "lr=1"])
def test_where_nested_too_deeply_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="more than 100 '\\(' and 'not' are open") as caught:
        compile_where(text)
    assert len(str(caught.value)) < 100


def test_where_a_hundred_parentheses_are_no_problem() -> None:
    assert compile_where("(" * 100 + "index=3" + ")" * 100)(facts())


@given(st.text(max_size=30))
def test_where_never_fails_otherwise(text: str) -> None:
    try:
        where = compile_where(text)
    except InputError:
        return
    assert where(facts()) in (True, False)


@given(st.floats(-1e6, 1e6, allow_nan=False), st.floats(-1e6, 1e6, allow_nan=False))
def test_where_compares_numbers_as_numbers(found: float, given_one: float) -> None:
    where = compile_where(f"x<{given_one}")
    assert where(facts(parameters={"x": str(found)})) == (found < given_one)
