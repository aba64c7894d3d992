"""`umpteen export`: a row a task."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Umpteen
from umpteen.cli.export import _put
from umpteen.query.table import Table

MEASURES = """echo {lr}; printf '%s' '{"loss": {"test": 0.5, "by": [1, 2]}, "ok": true}' \
> $UMPTEEN_RESULTS_DIR/metrics.json"""


def read_csv(umpteen: Umpteen, *arguments: str) -> list[dict[str, str]]:
    done = umpteen("export", "job", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return list(csv.DictReader(io.StringIO(done.stdout)))


def read_json(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_export_csv_has_a_row_a_task(umpteen: Umpteen) -> None:
    umpteen("run", MEASURES, "lr=0.1,0.01", "--name", "job", "-q")
    rows = read_csv(umpteen)
    assert [(row["name"], row["index"], row["state"]) for row in rows] == [
        ("lr=0.1", "0", "succeeded"), ("lr=0.01", "1", "succeeded")
    ]  # fmt: skip
    assert (
        list(rows[0])
        == (
            "name index state lr attempt exit_code signal reason seconds cpu_s peak_mb start end "
            "stdout_bytes loss.test loss.by ok"
        ).split()
    )
    assert (rows[0]["lr"], rows[0]["exit_code"], rows[0]["stdout_bytes"]) == ("0.1", "0", "4")
    assert (rows[0]["loss.test"], rows[0]["loss.by"], rows[0]["ok"]) == ("0.5", "[1, 2]", "true")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", rows[0]["start"])


def test_export_json_has_an_object_a_line_with_the_same_keys(umpteen: Umpteen) -> None:
    umpteen("run", "[ {n} = 1 ]", "n=1,2", "--name", "job", "-q")
    first, second = read_json(umpteen("export", "job", "--json").stdout)
    assert list(first) == list(second)
    assert (first["n"], first["exit_code"], first["signal"]) == (1, 0, None)
    assert (second["state"], second["exit_code"]) == ("failed", 1)


def test_export_json_parameter_is_a_number_where_it_is_one_in_every_task(umpteen: Umpteen) -> None:
    table = "lr,seed,code,note\n0.10,1,007,1\n1e-3,-2,12,x\n"
    umpteen.write("p.csv", table)
    umpteen("run", "true", "--from", "p.csv", "--name", "job", "-q")
    rows = read_json(umpteen("export", "job", "--json").stdout)
    given = [tuple(row[name] for name in ("lr", "seed", "code", "note")) for row in rows]
    assert given == [(0.1, 1, "007", "1"), (0.001, -2, "12", "x")]
    assert [row["lr"] for row in read_csv(umpteen)] == ["0.10", "1e-3"]  # as it was written


def test_export_of_a_task_that_has_not_run_is_empty(umpteen: Umpteen) -> None:
    umpteen("run", "true", "n=1,2", "--name", "job", "--only", "n=2", "-q")
    first, second = read_csv(umpteen, "--csv")
    assert (first["state"], first["attempt"], first["start"]) == ("waiting", "", "")
    assert (second["state"], second["attempt"]) == ("succeeded", "1")


def test_export_names_columns_apart_that_clash(umpteen: Umpteen) -> None:
    writes = """printf '{"seconds": 3, "lr": 4}' > $RESULTS_DIR/metrics.json; true {state} {lr}"""
    umpteen("run", writes, "state=a", "lr=1", "--name", "job", "-q")
    (row,) = read_csv(umpteen)
    assert (row["state"], row["param.state"]) == ("succeeded", "a")
    assert (row["param.lr"], row["metric.lr"], row["metric.seconds"]) == ("1", "4", "3")


def test_export_gives_each_column_a_name_of_its_own(umpteen: Umpteen) -> None:
    content = '{"seconds": 1, "metric": {"seconds": 2, "metric": {"seconds": 3}}, "ok": 4}'
    umpteen("run", f"printf '{content}' > $RESULTS_DIR/metrics.json", "--name", "job", "-q")
    head, row = csv.reader(io.StringIO(umpteen("export", "job").stdout))
    assert len(set(head)) == len(head) == len(row)
    cells = dict(zip(head, row, strict=True))
    assert (cells["metric.seconds"], cells["metric.metric.seconds"], cells["ok"]) == ("2", "3", "4")
    assert cells["metric.metric.metric.seconds"] == "1"


@pytest.mark.parametrize("content", ["{", "[1]", "\\377", '{"a": 1'])
def test_export_leaves_broken_metrics_out_and_names_the_task(
    umpteen: Umpteen, content: str
) -> None:
    umpteen("run", f"printf '{content}' > $RESULTS_DIR/metrics.json", "--name", "job", "-q")
    done = umpteen("export", "job", "--json")
    assert done.returncode == 0
    assert done.stderr.startswith("0: results/metrics.json left out: ")
    assert len(read_json(done.stdout)) == 1


@pytest.mark.parametrize("value", ['"\\ud800"', '[["\\ud800"]]'])
def test_export_leaves_out_the_values_that_cannot_be_written(umpteen: Umpteen, value: str) -> None:
    umpteen.write("metrics.json", f'{{"bad": {{"x": {value}}}, "ok": 1}}')
    copy = "[ {n} = 2 ] || cp metrics.json $RESULTS_DIR; true"
    umpteen("run", copy, "n=1,2", "--name", "job", "-q")
    for flag, name in (("--json", "job.jsonl"), ("--csv", "job.csv")):
        done = umpteen("export", "job", flag, "--output", name)
        assert done.returncode == 0
        assert done.stderr == (
            "n=1: 'bad.x' of results/metrics.json left out: it cannot be written\n"
        )
    first, second = read_json((umpteen.folder / "job.jsonl").read_text())
    assert (first["ok"], second["ok"]) == (1, None)
    assert "bad.x" not in first
    assert not list(umpteen.folder.glob("*.new"))


def test_export_leaves_nothing_beside_a_file_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    table = Table(["name"], iter([{"name": "\ud800"}]), [])
    with pytest.raises(UnicodeEncodeError):
        _put("job.csv", table, as_json=False)
    assert list(tmp_path.iterdir()) == []


def test_export_into_a_folder_is_refused(umpteen: Umpteen) -> None:
    umpteen("run", "true", "--name", "job", "-q")
    done = umpteen("export", "job", "--output", ".")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --output: '.' is a folder\n\nhint: give a file in it")


def test_export_of_no_numbers_is_still_json(umpteen: Umpteen) -> None:
    umpteen("run", """printf '{"loss": NaN}' > $RESULTS_DIR/metrics.json""", "--name", "job", "-q")
    assert read_json(umpteen("export", "job", "--json").stdout)[0]["loss"] is None
    assert read_csv(umpteen)[0]["loss"] == "nan"


def test_export_into_a_file(umpteen: Umpteen) -> None:
    umpteen("run", "true", "--name", "job", "-q")
    done = umpteen("export", "job", "--output", "job.csv")
    assert (done.returncode, done.stdout) == (0, "")
    assert (umpteen.folder / "job.csv").read_text().startswith("name,index,state,")
    failed = umpteen("export", "job", "--output", "no/such/folder.csv")
    assert failed.returncode == 3
    assert failed.stderr.startswith("error: could not write no/such/folder.csv")


def test_export_dropped_tasks_are_left_out(umpteen: Umpteen) -> None:
    umpteen("run", "true", "n=1,2", "--name", "job", "-q")
    umpteen("run", "true", "n=2", "--name", "job", "-q")
    assert [row["name"] for row in read_csv(umpteen)] == ["n=2"]


def test_export_both_forms_at_once_are_refused(umpteen: Umpteen) -> None:
    umpteen("run", "true", "--name", "job", "-q")
    done = umpteen("export", "job", "--csv", "--json")
    assert done.returncode == 2


@pytest.mark.slow
def test_export_of_twenty_thousand_tasks_takes_seconds(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "true\n" * 20_000)
    umpteen("run", "job.txt", "-q", timeout_s=120)
    done = umpteen("export", "job", timeout_s=20)
    assert done.stdout.count("\n") == 20_001
