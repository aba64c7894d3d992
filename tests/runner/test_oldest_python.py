"""A worker with Python 3.9 and nothing else leaves of a job what this machine's Python leaves."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Umpteen
from tests.support.store import list_records, read_tree
from umpteen.executors.base import BatchRequest, SubmitRequest
from umpteen.executors.engine import build_order, read_answer
from umpteen.executors.zipapp import build_carrier
from umpteen.store.identity import Identity, read_id

# As a worker of an engine does: it is handed text, and has nothing of umpteen.
_WORKER = """
import sys, types
texts = [open(path, encoding="utf-8").read() for path in sys.argv[1:]]
carrier = types.ModuleType("carrier")
exec(compile(texts[0], "carrier", "exec"), carrier.__dict__)
print(carrier.run_batch(texts[1]))
"""
_JOB: dict[str, Any] = {
    "slots": 2,
    "file_syncs": [{"src": "./code"}],
    "tasks": [
        {"name": "prints", "command": "echo out; echo err >&2; echo 1 > $UMPTEEN_RESULTS_DIR/n"},
        {"name": "synced", "command": "cat $UMPTEEN_SYNCED/file", "after": "prints"},
        {"name": "fails", "command": "echo 'a \"b\" ünï 名' >&2; exit 5"},
        {"name": "skipped", "command": "touch ran", "after": "fails"},
        {
            "name": "retried",
            "command": "echo $UMPTEEN_ATTEMPT; test $UMPTEEN_ATTEMPT -gt 1",
            "retries": {"when": "failed", "times": 2, "wait": 0},
        },
        {"name": "slow", "command": "sleep 60", "timeout": "0.3s"},
        {"name": "limited", "command": "yes", "output_limit": 1000},
        {"name": "lost", "command": "/no/such/program"},
    ],
}
_STATES = [
    ("prints", "succeeded"),
    ("synced", "succeeded"),
    ("fails", "failed"),
    ("skipped", "skipped"),
    ("retried", "failed"),
    ("retried", "succeeded"),
    ("slow", "timed_out"),
    ("limited", "failed"),
    ("lost", "failed"),
]
# What differs from run to run.
_MEASURED = ("start_s", "end_s", "seconds", "cpu_s", "peak_kb", "slot", "token")


def list_lasting(store: Path) -> list[dict[str, Any]]:
    """The records, without what was measured, by task and attempt."""
    records = sorted(list_records(store), key=lambda record: (record["task"], record["attempt"]))
    return [{k: v for k, v in record.items() if k not in _MEASURED} for record in records]


def read_outputs(store: Path) -> dict[str, bytes]:
    """What tasks left; a kept attempt is named after its runner."""
    return {
        re.sub("/1-[0-9a-f]{12}/", "/1/", name): content
        for name, content in read_tree(store).items()
        if not name.startswith(".umpteen/")
    }


def clear_outcome(store: Path) -> None:
    """Remove what running has left; the batch stays as it was submitted."""
    for path in store.iterdir():
        if path.name != ".umpteen":
            shutil.rmtree(path)
    shutil.rmtree(store / ".umpteen/records")


def build_worker_order(store: Path) -> str:
    identity = Identity(str(store), read_id((store / ".umpteen/job.json").read_bytes()))
    batch = BatchRequest("1")
    return build_order(SubmitRequest(identity, [batch], 2, mark="0" * 12), batch.batch, cpus=0)


@pytest.mark.parametrize("environment", [{}, {"UMPTEEN_PORTABLE": "1"}])
def test_worker_with_oldest_python_leaves_the_same(
    umpteen: Umpteen, oldest_python: str, environment: dict[str, str]
) -> None:
    umpteen.write("code/file", "data\n")
    umpteen.write("job.json", json.dumps(_JOB))
    here = umpteen("run", "job.json", env=environment)
    store = umpteen.store()
    records, outputs = list_lasting(store), read_outputs(store)
    names = [task["name"] for task in _JOB["tasks"]]
    assert [(names[r["task"]], r["state"]) for r in records] == _STATES, here.stderr
    clear_outcome(store)
    carried = umpteen.write("carrier.py", build_carrier().text)
    order = umpteen.write("order.json", build_worker_order(store))

    done = subprocess.run(
        [oldest_python, "-S", "-E", "-B", "-c", _WORKER, str(carried), str(order)],
        cwd=umpteen.folder,
        env={**umpteen.environment, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    assert read_answer(done.stdout) == (0, "")
    assert list_lasting(store) == records
    assert read_outputs(store) == outputs
