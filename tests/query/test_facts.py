"""What is known of each task, and the table of a job."""

from __future__ import annotations

import json
from pathlib import Path

from umpteen.history.history import History
from umpteen.query.expression import FIELDS, compile_where
from umpteen.query.facts import TaskFacts, read_facts
from umpteen.query.table import read_table


def test_facts_are_a_row_for_each_task(history: History) -> None:
    found = read_facts(history)
    assert [facts.name for facts in found] == ["prep", "train-1", "train-2", "report"]
    train = found[1]
    assert (train.state, train.exit_code, train.seconds, train.peak_mb) == ("failed", 3, 2.0, 2.0)
    assert (train.parameters, train.tags) == ({"lr": "0.1"}, ["big"])
    assert train.is_over


def test_facts_of_a_task_without_an_attempt_are_empty(history: History) -> None:
    task = history.read_tasks()[0]
    facts = TaskFacts(task, 0)
    assert (facts.state, facts.attempt, facts.exit_code, facts.reason) == ("waiting", 0, None, "")
    assert not facts.is_over


def test_facts_have_every_field_that_an_expression_may_name(history: History) -> None:
    facts = read_facts(history)[1]
    for field in FIELDS:
        compile_where(f"{field}~*")(facts)


def test_facts_are_chosen_by_an_expression(history: History) -> None:
    where = compile_where("state=failed and lr<0.2")
    assert [facts.name for facts in read_facts(history) if where(facts)] == ["train-1"]


def test_table_makes_numbers_of_parameters_that_are_numbers(history: History) -> None:
    rows = list(read_table(history).rows)
    assert [row["lr"] for row in rows] == [None, 0.1, 0.2, None]
    assert [row["lr"] for row in read_table(history, are_typed=False).rows][1] == "0.1"


def test_table_has_metrics_and_tells_what_it_leaves_out(history: History) -> None:
    folder = Path(history.store.address)
    good, bad = (folder / name / "results" / "metrics.json" for name in ("prep", "train-1"))
    good.write_text(json.dumps({"loss": {"test": 0.5}, "lr": 1}))
    bad.write_text("[]")
    table = read_table(history)
    assert table.columns[-2:] == ["loss.test", "metric.lr"]
    rows = list(table.rows)
    assert (rows[0]["loss.test"], rows[0]["metric.lr"]) == (0.5, 1)
    assert table.complaints == ["train-1: results/metrics.json left out: it is no JSON object"]


def test_table_times_are_utc_and_empty_where_nothing_ran(history: History) -> None:
    rows = list(read_table(history).rows)
    assert rows[1]["start"] == "1970-01-01T00:00:11.000Z"
    assert (rows[1]["exit_code"], rows[1]["stdout_bytes"]) == (3, 0)
