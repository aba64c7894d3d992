"""Where the log of a job lies, and what is in it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umpteen.bundles.log import RUN_SCRIPT, build_log_word, show_log

VARIABLES = {"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "11", "USER": "me"}
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0%"))


def read(word: str) -> str:
    """What a shell on the node makes of it."""
    script = f"printf '%s.' {word}"
    done = subprocess.run(
        ["sh", "-c", script], env={**os.environ, **VARIABLES}, capture_output=True, check=True
    )
    return os.fsdecode(done.stdout)[:-1]


@pytest.mark.parametrize(
    ("pattern", "index", "expected"),
    [
        ("/w/%x-%j.out", None, "/w/job-12.out"),
        ("%x.%A_%a", 3, "job.11_3"),
        ("%u/100%%/%z", None, "me/100%/%z"),
        ("%4j-%4A-%3a-%3x", 7, "0012-0011-007-job"),
    ],
)
def test_pattern_is_filled_as_slurm_does(pattern: str, index: int | None, expected: str) -> None:
    assert read(build_log_word(pattern, "job", index)) == expected


@given(TEXTS, TEXTS)
def test_pattern_is_quoted_whatever_is_in_it(text: str, name: str) -> None:
    assert read(build_log_word(f"{text}/%x", name, None)) == f"{text}/{name}"


def test_path_is_shown_with_the_number_of_the_job() -> None:
    assert show_log("/w/%x-%j%%.out", "job", 12) == "/w/job-12%.out"
    assert show_log("%4j.%3x.%N", "job", 12) == "0012.job.%N"


def run(folder: Path, script: str, kind: str, errors: str = "") -> subprocess.CompletedProcess[str]:
    """Run a script by ours, its stdout and stderr in files as umpteen has them."""
    (folder / "run.sh").write_text(RUN_SCRIPT)
    (folder / "script").write_text(script)
    environment = {**os.environ, "SLURM_ARRAY_TASK_ID": "7"}
    with (folder / "stdout").open("w") as out, (folder / "stderr").open("w") as err:
        words = ["sh", "run.sh", kind, "log", errors, "script"]
        return subprocess.run(
            words,
            cwd=folder,
            env=environment,
            stdout=out,
            stderr=err,
            text=True,
            check=False,
            start_new_session=True,
        )


def test_what_a_script_prints_is_in_its_log_and_kept_apart(tmp_path: Path) -> None:
    script = "echo out; echo err >&2; echo ${SLURM_ARRAY_TASK_ID-none}; exit 5"
    assert run(tmp_path, script, "job").returncode == 5
    assert (tmp_path / "stdout").read_text() == "out\nnone\n"
    assert (tmp_path / "stderr").read_text() == "err\n"
    assert sorted((tmp_path / "log").read_text().split()) == ["err", "none", "out"]


def test_errors_have_a_log_of_their_own_where_that_is_asked_for(tmp_path: Path) -> None:
    script = "echo $SLURM_ARRAY_TASK_ID; echo err >&2"
    assert run(tmp_path, script, "array", "errors").returncode == 0
    assert (tmp_path / "log").read_text() == "7\n"
    assert (tmp_path / "errors").read_text() == "err\n"


def test_what_a_script_leaves_running_holds_nothing_up(tmp_path: Path) -> None:
    script = "sleep 600 & echo $!; printf last"
    assert run(tmp_path, script, "job").returncode == 0
    left, last = (tmp_path / "log").read_text().splitlines()
    assert last == "last"
    os.kill(int(left), 9)


def test_what_a_script_prints_when_it_is_ended_is_copied_too(tmp_path: Path) -> None:
    script = "trap 'echo asked; exit 6' TERM; kill -TERM 0; sleep 600 & wait"
    assert run(tmp_path, script, "job").returncode == 6
    assert (tmp_path / "log").read_text() == "asked\n"
