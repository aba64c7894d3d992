"""Batch files of `sc`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from umpteen.errors import InputError
from umpteen.formats import read_job
from umpteen.job.spec import Job, Task

Read = Callable[..., Job]

TOP = "sfs://internal/hugo/intercom-backfill-2024-03-24/"
CMD = "python operations/pipelines/hosted/enrich_user_data.py --start-dt 2023-12-31"
DOCUMENT = f"""\
nprocs: 4
remote_output_path: {TOP}
runs:
- cmd: {CMD} --end-dt 2024-01-02 --enrich --first-seen
  remote_output_path: {TOP}2024-01-01
- cmd: {CMD} --end-dt 2024-01-03 --enrich --first-seen
  remote_output_path: {TOP}2024-01-02
"""


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """`read(text, "batch.yaml")` is the job of such a file."""
    monkeypatch.chdir(tmp_path)

    def read(text: str, name: str = "batch.yaml") -> Job:
        Path(name).write_text(text)
        return read_job([name])

    return read


def test_sc_document_is_read(read: Read) -> None:
    job = read(DOCUMENT)
    assert (job.settings.slots, job.settings.address) == (4, TOP)
    assert job.settings.status_file == "status_code"
    assert job.tasks == [
        Task(f"{CMD} --end-dt 2024-01-02 --enrich --first-seen", "2024-01-01"),
        Task(f"{CMD} --end-dt 2024-01-03 --enrich --first-seen", "2024-01-02"),
    ]


def test_sc_batch_as_split_writes_it_is_read(read: Read) -> None:
    batch = {
        "nprocs": 4,
        "remote_output_path": TOP,
        "runs": [
            {
                "remote_output_path": f"{TOP}2023-09-01",
                "cmd": CMD,
                "local_results_dir": "/tmp/819b537dd41140e2a0bbd59b877486f3/",
                "status_code": 0,
                "status": "completed",
            },
            {"remote_output_path": f"{TOP}2023-09-02", "cmd": CMD, "status_code": None},
        ],
        "umpteen": {"batch": 3},
        "instance_type": "large",
    }
    job = read(json.dumps(batch), "0.json")
    assert job.name == "intercom-backfill-2024-03-24"
    assert job.tasks[0].results_dir == "/tmp/819b537dd41140e2a0bbd59b877486f3/"
    assert [task.name for task in job.tasks] == ["2023-09-01", "2023-09-02"]


def test_sc_run_is_named_by_its_path_or_its_position(read: Read) -> None:
    job = read("""\
remote_output_path: file:///out/
runs:
- cmd: a
- {cmd: b, remote_output_path: "file:///out/x/y/"}
- {cmd: c, remote_output_path: "file:///elsewhere/z"}
- {cmd: d, remote_output_path: "file:///out/../up"}
- {cmd: e, remote_output_path: "file:///out"}
""")
    assert [(task.name, task.output) for task in job.tasks] == [
        ("0", None),
        ("x/y", None),
        ("2", "file:///elsewhere/z"),
        ("3", "file:///out/../up"),
        ("4", "file:///out"),
    ]
    assert job.settings.sources["slots"] == "default"


def test_sc_runs_with_their_own_paths_need_no_top(read: Read) -> None:
    job = read("runs: [{cmd: a, remote_output_path: /out/a}]")
    assert job.tasks == [Task("a", "0", output="/out/a")]
    assert job.settings.sources["address"] == "default"


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("nprocs: 0\nruns: [{cmd: a}]", 1, "'nprocs' must be a whole number of at least 1, not 0"),
        ("nprocs: -4\nruns: [{cmd: a}]", 1, "'nprocs' must be a whole number"),
        ("nprocs: 2\nruns:\n- {cmd: a}", 3, "no 'remote_output_path'"),
        ("remote_output_path: a\nruns:\n- {cmd: a, command: b}", 3, "unknown key 'command'"),
        ("remote_output_path: a\nruns:\n- {status: b}", 3, "no command"),
        ("remote_output_path: a\nruns:\n- b", 3, "item 0 of 'runs' must be a mapping"),
        ("remote_output_path: a\nruns: b", 2, "'runs' must be a list of runs, not 'b'"),
        (
            "remote_output_path: a\nruns:\n- {cmd: a, remote_output_path: /}",
            3,
            "'remote_output_path' cannot be the root folder itself",
        ),
        ("remote_output_path: a\nruns:\n- {cmd: [a]}", 3, "'cmd' must be a text, not a list"),
        (
            "remote_output_path: a\nruns:\n- {cmd: a}\n- {cmd: b, remote_output_path: a/0}",
            4,
            "two tasks have the name '0'",
        ),
    ],
)
def test_sc_wrong_input_names_its_line(read: Read, text: str, line: int, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        read(text)
    assert problem in caught.value.message
    assert caught.value.line == line


def test_sc_without_runs_is_refused(read: Read) -> None:
    with pytest.raises(InputError, match=r"batch\.yaml has no tasks"):
        read("remote_output_path: a\nruns: []\n")
