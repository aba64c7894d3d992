"""`umpteen completion`: verbs, flags and job names in the shell."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.command import Umpteen
from umpteen.cli.group import VERBS


def complete(umpteen: Umpteen, line: str) -> list[str]:
    """What bash is offered at the end of a line."""
    words = line.split(" ")
    asked = {
        "_UMPTEEN_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)
    }  # fmt: skip
    done = umpteen(env=asked)
    assert done.stderr == ""
    return [item.partition(",")[2] for item in done.stdout.splitlines()]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_what_the_shell_reads(umpteen: Umpteen, shell: str) -> None:
    done = umpteen("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"_UMPTEEN_COMPLETE={shell}_complete" in done.stdout


def test_completion_script_is_good_for_bash(umpteen: Umpteen) -> None:
    umpteen("run", "true", "--name", "sweep", "-q")
    script = umpteen("completion", "bash").stdout
    ask = (
        'COMP_WORDS=(umpteen logs sw); COMP_CWORD=2; _umpteen_completion umpteen; echo "$COMPREPLY"'
    )
    path = f"{umpteen.home}:{umpteen.environment['PATH']}"
    (umpteen.home / "umpteen").symlink_to(umpteen.command[0])
    done = subprocess.run(
        ["bash", "-c", script + "\n" + ask], cwd=umpteen.folder,
        env=umpteen.environment | {"PATH": path}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "sweep\n"


def test_completion_of_verbs_and_flags(umpteen: Umpteen) -> None:
    assert complete(umpteen, "umpteen ") == list(VERBS)
    assert complete(umpteen, "umpteen st") == ["status"]
    assert complete(umpteen, "umpteen run --fail") == ["--fail-fast"]
    assert complete(umpteen, "umpteen completion z") == ["zsh"]
    assert complete(umpteen, "umpteen nonsense ") == list(VERBS)


def test_completion_of_task_names(umpteen: Umpteen) -> None:
    umpteen.write(
        "rules.yaml", "tasks: [{name: flow, command: 'true'}, {name: flat, command: 'true'}, ls]"
    )
    umpteen("run", "rules.yaml", "-q")
    for verb in ("logs", "why", "retry", "cancel"):
        assert complete(umpteen, f"umpteen {verb} rules fl") == ["flow", "flat"]
        assert complete(umpteen, f"umpteen {verb} rules 2") == ["2"]
        assert complete(umpteen, f"umpteen {verb} nowhere fl") == [""]
    assert complete(umpteen, "umpteen retry rules flow fla") == ["flat"]


@pytest.mark.parametrize(
    "verb", ["collect", "status", "logs", "results", "why", "retry", "cancel", "export", "rm"]
)
def test_completion_of_job_names(umpteen: Umpteen, verb: str) -> None:
    for name in ("sweep", "sim", "other"):
        umpteen("run", "true", "--name", name, "-q")
    assert complete(umpteen, f"umpteen {verb} s") == ["sim", "sweep"]


def test_completion_of_machines_and_bundles(umpteen: Umpteen) -> None:
    (umpteen.home / ".milexconfig").write_text('{"big": {"path": "/x", "hostname": "big"}}')
    for name in ("sweep", "sweep", "other"):
        umpteen("schedule", "--name", name, "--", "true")
    assert complete(umpteen, "umpteen config show ") == ["local", "big"]
    assert complete(umpteen, "umpteen schedule --machine b") == ["big"]
    assert complete(umpteen, "umpteen schedule --append --name s") == ["sweep"]
    (umpteen.home / ".milexconfig").write_text("{")
    assert complete(umpteen, "umpteen schedule --machine b") == [""]
