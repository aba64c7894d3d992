"""What engines carry to workers stands alone, and agrees with what it says again."""

from __future__ import annotations

import json
import os

import pytest

from umpteen.executors.base import SubmitRequest
from umpteen.executors.engine import build_order
from umpteen.model.complaint import Complaint, build_complaint, find_complaint
from umpteen.runner import engine_worker
from umpteen.runner.arguments import Options
from umpteen.runner.launch import build_runner_command
from umpteen.store.identity import Identity
from umpteen.system.locks import leases_folder

REQUEST = SubmitRequest(Identity("/data/job", "0" * 16), [], 0, "0a1b2c", {}, {"KEY": "value"})


def read_order(cpus: int = 2) -> engine_worker.Order:
    order: engine_worker.Order = json.loads(build_order(REQUEST, "17", cpus=cpus))
    return order


def test_order_has_every_field_that_a_worker_reads() -> None:
    assert set(read_order()) == set(engine_worker.Order.__annotations__)
    assert read_order()["slots"] == 1  # a worker's slot runs one task at a time


def test_runner_is_started_with_the_same_flags_as_on_this_machine() -> None:
    *here, _, _ = build_runner_command()
    assert engine_worker.build_command(read_order(), "/unpacked", "0a1b2c")[: len(here)] == here


def test_runner_understands_what_a_worker_starts_it_with() -> None:
    command = engine_worker.build_command(read_order(), "/unpacked", "0a1b2c")
    options = Options(command[command.index("-c") + 2 :])
    assert (options.place, options.batches, options.token) == ("/data/job", ["17"], "0a1b2c")
    assert (options.slots, options.cpus, options.store) == (1, 2, "0" * 16)
    assert options.is_carried
    assert options.orphan_grace_s == engine_worker.ORPHAN_GRACE_S


@pytest.mark.parametrize("below", ["", "own", "umpteen-{uid}", "umpteen-{uid}/"])
def test_folder_of_leases_is_the_same_as_on_this_machine(
    below: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path_factory.mktemp("leases") / "above"
    monkeypatch.setenv("UMPTEEN_LEASES", f"{place}/{below.format(uid=os.getuid())}")
    assert engine_worker.name_folder() == leases_folder()


def test_error_of_a_runner_names_its_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_worker, "_name_worker", lambda: "node7 (tcp://10.0.0.7:1)")
    said = f"noise\n{build_complaint('the disk is full', 'make room')}\n"
    answer = json.loads(engine_worker._answer(3, said))
    assert find_complaint(answer["said"]) == Complaint(
        "worker node7 (tcp://10.0.0.7:1): the disk is full", "make room"
    )
    assert json.loads(engine_worker._answer(0, said))["said"].splitlines() == said.splitlines()


def test_own_error_of_a_worker_is_one_of_a_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_worker, "_OLDEST", (99, 0))
    found = find_complaint(json.loads(engine_worker.run_batch("{}"))["said"])
    assert found is not None
    assert "it has Python 3." in found.message
    assert found.hint == "start workers with Python 3.9 or newer"
