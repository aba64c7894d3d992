"""Options of results that stand in a job file: the other verbs know them, but for secrets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Umpteen
from tests.support.s3 import S3
from umpteen.model.variables import RESULTS_OPTIONS

VERBS = [
    ("status", "job"),
    ("status", "job", "--verify"),
    ("logs", "job", "0"),
    ("why", "job", "0"),
    ("export", "job"),
    ("results", "job"),
    ("retry", "job"),
    ("collect", "job"),
    ("cancel", "job"),
]


def write_job(umpteen: Umpteen, s3: S3, options: dict[str, Any]) -> None:
    results = {"s3_url": s3.address, "options": options}
    job = {"name": "job", "results": results, "tasks": [{"command": "echo out; exit 3"}]}
    umpteen.write("job.json", json.dumps(job))


def read_kept(umpteen: Umpteen) -> list[dict[str, str]]:
    """The options that the user's own files have, by job."""
    files = umpteen.home.rglob("umpteen/jobs/*.json")
    return [json.loads(path.read_text())["options"] for path in files]


def test_verbs_find_options_of_the_job_file_again(umpteen: Umpteen, s3: S3) -> None:
    write_job(umpteen, s3, {"endpoint_url": s3.endpoint})
    env = {"AWS_ACCESS_KEY_ID": s3.key, "AWS_SECRET_ACCESS_KEY": s3.secret}
    assert umpteen("run", "job.json", env=env).returncode == 1
    for verb, *words in VERBS:
        done = umpteen(verb, *words, env=env)
        assert done.returncode in (0, 1), (verb, done.stderr)
    assert umpteen("logs", s3.address, "0", env=env).stdout == "out\n"
    assert json.loads(umpteen("ls", "--json", env=env).stdout)[0]["counts"]["failed"] == 1
    assert umpteen("rm", "job", "--yes", env=env).returncode == 0


def test_options_of_results_are_not_printed(umpteen: Umpteen, s3: S3) -> None:
    write_job(umpteen, s3, {"endpoint_url": s3.endpoint, "key": s3.key, "secret": s3.secret})
    assert umpteen("run", "job.json").returncode == 1
    for verb in ("run", "retry"):
        shown = umpteen(verb, "job.json", "--dry-run", "--json")
        assert shown.returncode == 0
        assert "results_options" not in json.loads(shown.stdout)["settings"]


def test_tables_of_options_are_joined_with_those_of_the_environment(
    umpteen: Umpteen, s3: S3
) -> None:
    keys = {"aws_access_key_id": s3.key, "aws_secret_access_key": s3.secret}
    write_job(umpteen, s3, {"client_kwargs": {"endpoint_url": s3.endpoint, **keys}})
    assert umpteen("run", "job.json").returncode == 1
    env = {RESULTS_OPTIONS: json.dumps({"client_kwargs": keys})}
    assert umpteen("logs", "job", "0", env=env).stdout == "out\n"


def test_what_is_secret_is_asked_for_by_its_name(umpteen: Umpteen, s3: S3) -> None:
    options = {"endpoint_url": s3.endpoint, "key": s3.key, "secret": s3.secret}
    write_job(umpteen, s3, options)
    assert umpteen("run", "job.json").returncode == 1
    assert read_kept(umpteen) == [{"endpoint_url": s3.endpoint}]
    for job in ("job", s3.address):
        done = umpteen("retry", job)
        assert done.returncode == 3
        assert "the job has key and secret in `options` of its results" in done.stderr
        assert "give its file in place of its name, or UMPTEEN_RESULTS_OPTIONS" in done.stderr
    assert umpteen("retry", "job.json").returncode == 1
    assert umpteen("logs", "job.json", "0").stdout == "out\n"
    assert umpteen("run", "job.json", "--verify").returncode == 1
    assert umpteen("status", "job.json", "--verify").returncode == 1
    lacking = json.dumps({"key": s3.key, "secret": s3.secret})
    assert umpteen("retry", "job", env={"UMPTEEN_RESULTS_OPTIONS": lacking}).returncode == 1
    assert read_kept(umpteen) == [{"endpoint_url": s3.endpoint}]


@pytest.mark.parametrize("detach", [(), ("--detach",)])
def test_job_file_gives_its_options_on_another_machine(
    umpteen: Umpteen, s3: S3, detach: tuple[str, ...], tmp_path: Path
) -> None:
    options = {"endpoint_url": s3.endpoint, "key": s3.key, "secret": s3.secret}
    write_job(umpteen, s3, options)
    assert umpteen("run", "job.json").returncode == 1
    other = Umpteen(umpteen.folder, tmp_path / "other")
    other.home.mkdir()
    assert other("retry", "job.json", *detach).returncode == (0 if detach else 1)
    assert other("collect", "job.json").returncode == 1
    assert '"failed": 1' in other("status", "job.json", "--json").stdout
