"""Files of bundles: what is wrong with one is named with its field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from umpteen.bundles.bundle import BundleJob
from umpteen.bundles.bundle_file import decode_jobs, encode_jobs, parse_jobs, write_job
from umpteen.errors import InputError


def test_smallest_file_of_milex_is_read() -> None:
    job = {"name": "a", "script": "app", "slurm": {"time": "01:00"}}
    assert parse_jobs({"a": job}, "f") == {"a": BundleJob("a", "app", slurm={"time": "01:00"})}


def test_job_that_is_written_is_read_as_it_was() -> None:
    job = BundleJob(
        "a", "app", arguments={"k": "'v'", "n": [1, "x", None]}, dependencies=("b", "afterany:c"),
        pre_commands=("echo $x",), slurm={"ntasks": "2", "cpus-per-task": "3", "hold": ""},
    )  # fmt: skip
    written = json.loads(encode_jobs({"a": write_job(job)}))
    assert written["a"]["slurm"]["tasks"] == "2"
    assert parse_jobs(written, "f") == {"a": job}


@pytest.mark.parametrize(
    ("job", "message", "hint"),
    [
        ({}, "'a.script' is missing", "it names the program"),
        (3, "'a' must be an object, not 3", ""),
        ({"script": ""}, "'a.script' is missing", "it names the program"),
        ({"script": "x", "scirpt_args": {}}, "unknown key 'a.scirpt_args'", "'script_args'"),
        ({"script": 3}, "'a.script' must be text, not 3", ""),
        ({"script": "x", "script_args": []}, "'a.script_args' must be an object", ""),
        ({"script": "x", "slurm": []}, "'a.slurm' must be an object", ""),
        ({"script": "x", "script_args": {"k": {}}}, "'a.script_args.k' must be a text", ""),
        ({"script": "x", "script_args": {"k": "\0"}}, "'a.script_args.k' has a sign", ""),
        ({"script": "x", "dependencies": "b"}, "'a.dependencies' must be a list of texts", ""),
        ({"script": "x", "pre_commands": [3]}, "'a.pre_commands' must be a list of texts", ""),
        ({"script": "x", "slurm": {"tmie": 1}}, "a.slurm.tmie: sbatch has no", "'time'"),
        ({"script": "x", "slurm": {"time": "soon"}}, "a.slurm.time: 'soon' of 'time'", "minutes"),
        ({"script": "x", "slurm": {"time": "9" * 400 + "d"}}, "is no time that Slurm", "minutes"),
        ({"script": "x", "slurm": {"comment": "\ud800"}}, "must be one line of text", ""),
        ({"script": "x", "slurm": {"wrap": "x"}}, "sbatch has no option 'wrap'", ""),
    ],
)
def test_job_that_is_wrong_is_refused(job: Any, message: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_jobs({"a": job}, "bundle.json")
    assert caught.value.message.startswith("bundle.json: ")
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")
    assert (caught.value.field or "").startswith("a")


@pytest.mark.parametrize("name", ["a/b", "a\ud800"])
def test_job_whose_name_cannot_be_a_file_is_refused(name: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_jobs({name: {"script": "x"}}, "f")
    assert caught.value.message == f"f: {name!r} cannot be a job's name"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": }', ", line 1, column 7: Expecting value"),
        ('{"a": {"script": "x"}, "a": {}}', ": the key 'a' stands there twice"),
        ('{"a": {"slurm": {"time": 1, "time": 2}}}', ": the key 'time' stands there twice"),
        ("[]", ": is no JSON object of jobs"),
        ("\udcff", ": is no JSON text"),
        (f'{{"a": {"1" * 5000}}}', ": is no JSON text"),
    ],
)
def test_file_that_is_no_json_object_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "b.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError) as caught:
        decode_jobs(str(path))
    assert caught.value.message == f"{path}{message}"
