"""The batch file: what is written is read, by whichever encoder, and what is damaged is refused."""

from __future__ import annotations

import copy
import functools
import json
import operator
from typing import Any, get_type_hints

import msgspec
import pytest

from umpteen.history.files import parse_batch_names
from umpteen.job.spec import Retry
from umpteen.model.batch import (
    BatchFile,
    BatchView,
    RetryRule,
    RunEntry,
    encode_batch,
    parse_batch,
)
from umpteen.model.forms import FormError
from umpteen.planning.batch_files import EncodedRun

FILE: BatchFile = {
    "nprocs": 2,
    "remote_output_path": "/out",
    "runs": [
        {"cmd": "echo é", "remote_output_path": "/out/a"},
        {"cmd": "", "remote_output_path": "/out/b", "local_results_dir": "/tmp/b"},
    ],
    "umpteen": {
        "version": 1,
        "job": "job",
        "batch": "7",
        "indices": "3,5",
        "names": ["a", "b"],
        "extras": {"1": {"argv": ["echo", "x"], "cwd": "/tmp", "timeout_s": 2.5, "gpus": 1}},
        "common": {},
        "grace_s": 1.0,
        "cwd": "/home/ada",
        "attempts": {"0": [2, "ab", []]},
        "graph": True,
        "after": [-1, 0],
        "barriers": [{"any": "1-2"}],
        "waits": ["6"],
    },
}


def test_batch_file_is_read_as_it_was_written() -> None:
    assert parse_batch("7", encode_batch(FILE)) == FILE


def test_batch_file_of_the_fast_encoder_is_read_alike() -> None:
    runs = [EncodedRun(**run) for run in FILE["runs"]]
    content = msgspec.json.encode({**FILE, "runs": runs})
    assert parse_batch("7", content) == FILE


def test_fast_encoder_has_the_fields_of_the_definition() -> None:
    assert get_type_hints(EncodedRun) == get_type_hints(RunEntry)
    assert EncodedRun.__struct_fields__ == tuple(get_type_hints(RunEntry))
    assert get_type_hints(Retry) == get_type_hints(RetryRule)


def test_fast_decoder_reads_the_same_of_names_and_places() -> None:
    found = parse_batch_names(encode_batch(FILE), 10)
    assert found.names == FILE["umpteen"]["names"]
    assert [index for part in found.indices for index in part] == BatchView(FILE).indices
    assert found.outputs == [run["remote_output_path"] for run in FILE["runs"]]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["nprocs"], 0),
        (["runs", 0, "cmd"], None),
        (["runs", 0, "remote_output_path"], "/"),
        (["runs", 1, "local_results_dir"], 3),
        (["umpteen", "batch"], "8"),
        (["umpteen", "indices"], "3"),
        (["umpteen", "names"], ["a", "../b"]),
        (["umpteen", "extras"], {"2": {}}),
        (["umpteen", "extras"], {"1": {"argv": []}}),
        (["umpteen", "common"], {"retries": [{"times": 1}]}),
        (["umpteen", "attempts"], {"0": [1]}),
        (["umpteen", "attempts"], {"0": [1, "ab", [{"task": 1}]]}),
        (["umpteen", "after"], [-1, 1]),
        (["umpteen", "barriers"], [{"failed": "x"}]),
        (["umpteen", "grace_s"], -1),
        (["umpteen", "synced"], [["no digest", None, ""]]),
    ],
)
def test_batch_file_without_its_form_is_refused(path: list[Any], value: object) -> None:
    damaged: Any = copy.deepcopy(FILE)
    *above, last = path
    functools.reduce(operator.getitem, above, damaged)[last] = value
    with pytest.raises(FormError):
        parse_batch("7", json.dumps(damaged).encode())


def test_view_gives_what_a_task_has_beside_its_command() -> None:
    view = BatchView(FILE)
    assert view.indices == [3, 5]
    assert (view.terms_of(0), view.terms_of(1)["gpus"]) == ({}, 1)
    assert (view.has_own_folder(0), view.has_own_folder(1)) == (False, True)
    assert view.digest(0) != view.digest(1)
    assert view.output(1) == "/out/b"


def test_view_knows_a_folder_that_a_split_made_up_for_one_run() -> None:
    made_up = f"/tmp/{'0' * 32}"
    file = copy.deepcopy(FILE)
    file["runs"][0]["local_results_dir"] = made_up + "/"
    assert BatchView(file).is_made_up(made_up)
    assert not BatchView(file).is_made_up("/tmp/b")
    file["runs"][1]["local_results_dir"] = made_up
    assert not BatchView(file).is_made_up(made_up)
