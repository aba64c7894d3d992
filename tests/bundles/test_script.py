"""The script of a job, and what a program gets of it from a real bash."""

from __future__ import annotations

import shlex
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umpteen._version import __version__
from umpteen.bundles.bundle import BundleJob
from umpteen.bundles.bundle_file import parse_jobs
from umpteen.bundles.script import build_script, build_script_path
from umpteen.config.machines import Config, Machine
from umpteen.config.reading import choose_machine

MACHINE = Machine(
    "big", path="/scratch/me", account="rrg-me", env_command="conda activate e",
    slurm={"partition": "gpu", "mem": "2G"},
)  # fmt: skip
STAMP = "20260102030405"
# Prints each word that it gets, with a NUL behind.
PRINT = r"printf '%s\0'"
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def run(text: str) -> list[str]:
    """The words that a program gets which prints them."""
    done = subprocess.run(["bash"], input=text.encode(), capture_output=True, check=True)
    return done.stdout.decode().split("\0")[:-1]


def build_plain(arguments: dict[str, Any], machine: Machine | None = None) -> str:
    job = BundleJob("app", PRINT, arguments=arguments)
    return build_script(job, machine or Machine("local", path="/x"), STAMP)


def list_directives(text: str) -> list[str]:
    return [line.partition(" ")[2] for line in text.splitlines() if line.startswith("#SBATCH")]


def test_script_has_its_parts_in_order() -> None:
    job = BundleJob(
        "train", "app", arguments={"lr": 0.1, "text": "a b", "numbers": [1, 2], "none": None},
        pre_commands=["module load a", "echo $MILEX"], slurm={"time": "1", "hold": ""},
    )  # fmt: skip
    assert (
        build_script(job, MACHINE, STAMP)
        == f"""\
#!/bin/bash
# Written by umpteen {__version__}: train of the bundle of {STAMP}.
#SBATCH --account=rrg-me
#SBATCH --output=/scratch/me/slurm/%x-%j.out
#SBATCH --job-name=train
#SBATCH --partition=gpu
#SBATCH --mem=2G
#SBATCH --time=1
#SBATCH --hold
export MILEX="/scratch/me"
conda activate e
module load a
echo $MILEX
app \\
    --lr=0.1 \\
    '--text=a b' \\
    --numbers 1 2
"""
    )


def test_line_12_script_of_the_same_job_is_the_same() -> None:
    job = BundleJob("app", "app", arguments={"b": 1, "a": 2}, slurm={"time": "1", "gres": "gpu:1"})
    assert build_script(job, MACHINE, STAMP) == build_script(job, MACHINE, STAMP)
    assert build_script_path(job, MACHINE, STAMP) == f"/scratch/me/slurm/app_{STAMP}.sh"


def test_line_13_script_of_another_machine_differs_by_what_the_machine_says() -> None:
    job = BundleJob("app", "app")
    other = Machine("other", path="/other", account="def-you", env_command="source v")
    ours, theirs = (build_script(job, each, STAMP).splitlines() for each in (MACHINE, other))
    assert "#SBATCH --account=def-you" in theirs
    assert [line for line in theirs if line not in ours] == [
        "#SBATCH --account=def-you", "#SBATCH --output=/other/slurm/%x-%j.out",
        'export MILEX="/other"', "source v",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"k": None}, []),
        ({"k": True}, ["--k"]),
        ({"k": False}, []),
        ({"k": []}, ["--k"]),
        ({"k": [1, 2.5]}, ["--k", "1", "2.5"]),
        ({"k": ["a b", 1]}, ["--k", "a b", "1"]),
        ({"k_a": "v"}, ["--k_a=v"]),
        ({"k": 1e-05}, ["--k=1e-05"]),
        ({"k": ""}, ["--k="]),
    ],
)
def test_line_20_values_become_words(arguments: dict[str, Any], words: list[str]) -> None:
    assert run(build_plain({"first": 1, **arguments})) == ["--first=1", *words]


@given(st.dictionaries(TEXTS.filter(bool), TEXTS, min_size=1), st.lists(TEXTS, min_size=1))
def test_line_21_values_arrive_unchanged(values: dict[str, str], items: list[str]) -> None:
    values.pop("list", None)
    words = [f"--{key}={value}" for key, value in values.items()]
    assert run(build_plain({**values, "list": list(items)})) == [*words, "--list", *items]


@given(TEXTS)
def test_line_21_value_that_milex_has_quoted_loses_its_quotes(value: str) -> None:
    job = {"script": "app", "script_args": {"k": shlex.quote(value)}}
    assert parse_jobs({"app": job}, "f")["app"].arguments == {"k": value}


def test_line_21_values_that_milex_has_quoted_arrive_as_they_were_typed() -> None:
    job = {
        "script": PRINT,
        "script_args": {"a": "'a b'", "b": ["'$HOME'"], "c": "it's", "d": "$x y"},
    }
    (old,) = parse_jobs({"app": job}, "f").values()
    (new,) = parse_jobs({"app": {**job, "umpteen": "1"}}, "f").values()
    assert (old.arguments["a"], new.arguments["a"]) == ("a b", "'a b'")
    assert run(build_script(old, Machine("local", path="/x"), STAMP)) == [
        "--a=a b", "--b", "$HOME", "--c=it's", "--d=$x y",
    ]  # fmt: skip


def test_line_22_options_written_by_hand_pass_through_and_count_more() -> None:
    slurm = {"partition": "big mem", "output": "/logs/%j", "mem_per_cpu": "1G", "job_name": "n"}
    (job,) = parse_jobs({"app": {"script": "app", "slurm": slurm}}, "f").values()
    assert list_directives(build_script(job, MACHINE, STAMP)) == [
        "--account=rrg-me", "--output=/logs/%j", "--job-name=n", "'--partition=big mem'",
        "--mem-per-cpu=1G",
    ]  # fmt: skip


def test_option_of_the_job_replaces_one_of_the_machine_that_says_otherwise() -> None:
    machine = Machine("m", path="/w", slurm={"gres": "gpu:1", "requeue": ""})
    job = BundleJob("app", "app", slurm={"gpus": "2", "no-requeue": ""})
    assert list_directives(build_script(job, machine, STAMP))[2:] == ["--gpus=2", "--no-requeue"]


def test_line_23_log_lies_below_the_path_of_the_machine() -> None:
    directives = list_directives(build_script(BundleJob("a", "a"), MACHINE, STAMP))
    assert "--output=/scratch/me/slurm/%x-%j.out" in directives


def test_line_24_milex_is_exported_before_all_else_runs() -> None:
    check = '[ "$MILEX" = "/a \\$b" ] || exit 9'
    machine = Machine("local", path="/a $b", env_command=check)
    job = BundleJob("app", f"{PRINT} $MILEX", pre_commands=[check])
    assert run(build_script(job, machine, STAMP)) == ["/a", "$b"]


def test_line_25_lines_before_run_in_order_after_the_environment_is_there() -> None:
    machine = Machine("local", path="/x", env_command="said=env")
    job = {
        "script": f'{PRINT} "$said"', "pre-commands": ["said+=-a"], "pre_commands": ["said+=-b"],
    }  # fmt: skip
    (found,) = parse_jobs({"app": job}, "f").values()
    assert run(build_script(found, machine, STAMP)) == ["env-a-b"]


def test_line_26_account_that_is_empty_has_no_line() -> None:
    text = build_script(BundleJob("app", "app"), Machine("local", path="/x"), STAMP)
    assert "--account" not in text


def test_line_27_second_entry_of_this_machine_has_its_own_account() -> None:
    second = Machine("local2", path="/x", account="def-other")
    assert second.is_local
    directives = list_directives(build_script(BundleJob("app", "app"), second, STAMP))
    assert "--account=def-other" in directives


def test_line_29_flags_count_more_than_the_entry_of_a_machine() -> None:
    config = Config({"local": Machine("local", path="/x"), "big": MACHINE})
    given = {"path": "/flag", "account": "", "env_command": "source flag"}
    machine = choose_machine(config, "big", given)
    assert build_script(BundleJob("app", "app"), machine, STAMP).splitlines()[2:] == [
        "#SBATCH --output=/flag/slurm/%x-%j.out", "#SBATCH --job-name=app",
        "#SBATCH --partition=gpu", "#SBATCH --mem=2G", 'export MILEX="/flag"', "source flag", "app",
    ]  # fmt: skip


def test_line_30_host_without_an_entry_is_a_machine() -> None:
    config = Config({"local": Machine("local", path="/x")})
    machine = choose_machine(config, None, {"host": "h", "user": "me", "path": "/there"})
    assert (machine.target, machine.folder, machine.name) == ("me@h", "/there", "h")
    assert choose_machine(config, None, {}) == config.local
