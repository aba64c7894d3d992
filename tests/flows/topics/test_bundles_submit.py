"""What milex-scheduler promises of submitting bundles, a test for each line of what must work."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Umpteen
from tests.support.milex import write_app
from tests.support.sftp import Ssh
from tests.support.slurm import SlurmCluster
from tests.support.wait import wait_until

Jobs = dict[str, Any]
WAIT = "until [ -e go ]; do sleep 0.05; done"


@pytest.fixture(autouse=True)
def apps(umpteen: Umpteen, monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs `app` and `other`, on PATH."""
    folder = umpteen.folder / "bin"
    for name in ("app", "other"):
        write_app(folder, name)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


@pytest.fixture
def work(umpteen: Umpteen) -> Path:
    """The folder of the machines `local` and `big`, which is another with its own account."""
    folder = umpteen.folder / "my work's $HOME"
    config = umpteen.home / ".config" / "umpteen" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(
        f'[machines.local]\npath = "{folder}"\nenv_command = "export LOADED=local"\n'
        '[machines.local.slurm]\ntime = "10"\n'
        f'[machines.big]\npath = "{folder}.big"\naccount = "lab"\n'
        'env_command = "export LOADED=big"\n'
    )
    return folder


@pytest.fixture
def put(work: Path) -> Callable[..., Path]:
    """`put({"a": {"script": "echo a"}})` is a bundle `b` that was written by hand."""

    def write(jobs: Jobs, name: str = "b", timestamp: str = "20260101000000") -> Path:
        path = work / "jobs" / f"{name}_{timestamp}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(jobs))
        return path

    return write


def submit(umpteen: Umpteen, *arguments: str) -> dict[str, dict[str, Any]]:
    """By job what `submit --json` says of it."""
    done = umpteen("submit", "--json", *arguments)
    assert done.returncode == 0, done.stderr + done.stdout
    return {job["job"]: job for job in json.loads(done.stdout)["jobs"]}


def finish(umpteen: Umpteen, name: str = "b") -> dict[str, int]:
    """How many tasks came to which end, once all have ended."""
    umpteen("collect", name, "--quiet")
    counts = json.loads(umpteen("status", name, "--json").stdout)["counts"]
    return {state: count for state, count in counts.items() if count}


def read_log(told: dict[str, Any]) -> str:
    return Path(told["log"]).read_text()


def list_queued(slurm: SlurmCluster) -> list[str]:
    return slurm.ask("squeue", "-h", "-o", "%j %E").stdout.splitlines()


def test_line_03_submit_takes_the_newest_bundle_named_after_the_script(
    umpteen: Umpteen, slurm: SlurmCluster, work: Path
) -> None:
    del slurm
    for rate in ("0.1", "0.2"):
        done = umpteen("schedule", "app", f"--lr={rate}", "--time=5")
        assert done.returncode == 0, done.stderr
    done = umpteen("submit", "app", "--machine=local")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"app: Slurm job \d+, umpteen logs app app\n", done.stdout)
    assert finish(umpteen, "app") == {"succeeded": 1}
    told = json.loads(umpteen("logs", "app", "app").stdout)
    assert "--lr=0.2" in told["argv"]
    assert told["milex"] == str(work)


def test_line_04_schedule_submits_at_once(umpteen: Umpteen, slurm: SlurmCluster) -> None:
    del slurm
    words = "schedule", "app", "--submit", "--machine=local", "--time=5"
    done = umpteen(*words)
    assert done.returncode == 0, done.stderr
    assert "app: Slurm job " in done.stdout
    assert finish(umpteen, "app") == {"succeeded": 1}
    told = json.loads(umpteen(*words, "--json").stdout)
    assert [job["job"] for job in told["jobs"]] == ["app"]


@pytest.mark.usefixtures("slurm")
def test_verbs_know_a_bundle_and_the_newest_of_its_name(
    umpteen: Umpteen, put: Callable[..., Path]
) -> None:
    put({"a": {"script": "echo old"}}, timestamp="20250101000000")
    put({"a": {"script": "echo new"}, "bad": {"script": "exit 3"}})
    submit(umpteen, "b")
    assert finish(umpteen) == {"succeeded": 1, "failed": 1}
    submit(umpteen, "b", "--at", "20250101000000")
    assert finish(umpteen, "b-20250101000000") == {"succeeded": 1}
    assert umpteen("logs", "b", "a").stdout == "new\n"
    assert umpteen("logs", "b-20250101000000", "a").stdout == "old\n"
    assert umpteen("retry", "b").returncode == 1
    again = submit(umpteen, "b")  # what succeeded is left alone
    assert (again["a"]["slurm_id"], again["bad"]["slurm_id"] is not None) == (None, True)
    finish(umpteen)
    put({"a": {"script": "echo changed"}, "bad": {"script": "exit 3"}})
    assert submit(umpteen, "b")["a"]["slurm_id"] is not None
    finish(umpteen)
    assert umpteen("logs", "b", "a").stdout == "changed\n"


def test_line_07_and_08_dependencies_are_slurms_own_in_any_order(
    umpteen: Umpteen, slurm: SlurmCluster, put: Callable[..., Path]
) -> None:
    put({
        "last": {"script": "cat order", "dependencies": ["one", "two"]},
        "one": {"script": f"{WAIT}; echo one >> order"},
        "two": {"script": f"{WAIT}; echo two >> order"},
    })  # fmt: skip
    told = submit(umpteen, "b")
    (queued,) = (line for line in list_queued(slurm) if line.startswith("last "))
    assert all(f":{told[name]['slurm_id']}" in queued for name in ("one", "two"))
    umpteen.write("go", "")
    assert finish(umpteen) == {"succeeded": 3}
    assert sorted(umpteen("logs", "b", "last").stdout.split()) == ["one", "two"]


@pytest.mark.usefixtures("slurm")
def test_kinds_of_dependencies_are_kept_and_nothing_hangs(
    umpteen: Umpteen, put: Callable[..., Path]
) -> None:
    put({
        "bad": {"script": "exit 1"},
        "ok": {"script": "true", "dependencies": ["bad"]},
        "any": {"script": "true", "dependencies": ["afterany:bad"]},
        "notok": {"script": "true", "dependencies": ["afternotok:bad"]},
        "alone": {"script": "true", "dependencies": ["singleton"]},
    })  # fmt: skip
    submit(umpteen, "b")
    assert finish(umpteen) == {"succeeded": 3, "failed": 1, "skipped": 1}


def test_singleton_waits_for_jobs_of_its_name(
    umpteen: Umpteen, slurm: SlurmCluster, put: Callable[..., Path]
) -> None:
    put({"a": {"script": WAIT}}, timestamp="20250101000000")
    put({"a": {"script": "test -e go", "dependencies": ["singleton"]}})
    submit(umpteen, "b", "--at", "20250101000000")
    submit(umpteen, "b")
    wait_until(lambda: "a singleton" in " ".join(list_queued(slurm)))
    umpteen.write("go", "")
    assert finish(umpteen) == {"succeeded": 1}


def test_line_09_loop_stops_before_anything_is_submitted(
    umpteen: Umpteen, slurm: SlurmCluster, put: Callable[..., Path], work: Path
) -> None:
    put({
        "a": {"script": "true", "dependencies": ["b"]},
        "b": {"script": "true", "dependencies": ["a"]},
    })  # fmt: skip
    done = umpteen("submit", "b")
    assert done.returncode == 2
    assert re.search("a after b after a|b after a after b", done.stderr)
    assert list_queued(slurm) == []
    assert not (work / "slurm").exists()


@pytest.mark.usefixtures("slurm")
def test_line_10_jobs_are_submitted_behind_what_they_depend_on(
    umpteen: Umpteen, put: Callable[..., Path]
) -> None:
    put({
        "c": {"script": "true", "dependencies": ["b"]},
        "b": {"script": "true", "dependencies": ["a"]},
        "a": {"script": "true"},
    })  # fmt: skip
    shown = umpteen("submit", "b", "--dry-run").stdout
    assert re.findall(r"would submit (\w)", shown) == ["a", "b", "c"]
    told = submit(umpteen, "b")
    ids = [told[name]["slurm_id"] for name in "abc"]
    assert ids == sorted(ids)
    assert finish(umpteen) == {"succeeded": 3}


@pytest.mark.usefixtures("slurm")
def test_line_12_old_bundle_gives_the_same_script_again(
    umpteen: Umpteen, put: Callable[..., Path], work: Path
) -> None:
    path = put({"a": {"script": "app", "script_args": {"lr": 1}, "slurm": {"time": "5"}}})
    script = work / "slurm" / "a_20260101000000.sh"
    before = path.read_bytes()
    submit(umpteen, "b")
    first = script.read_bytes()
    put({"a": {"script": "app"}}, timestamp="20260202000000")
    script.unlink()
    submit(umpteen, "b", "--at", "20260101000000")
    assert script.read_bytes() == first
    assert path.read_bytes() == before


@pytest.mark.usefixtures("slurm")
def test_line_13_one_bundle_goes_to_several_machines(
    umpteen: Umpteen, slurm: SlurmCluster, put: Callable[..., Path], work: Path
) -> None:
    put({"a": {"script": "echo $LOADED $MILEX"}})
    told = {name: submit(umpteen, "b", "--machine", name)["a"] for name in ("local", "big")}
    accounts = slurm.ask("squeue", "-h", "--states=all", "-o", "%F %a").stdout.split("\n")
    assert f"{told['big']['slurm_id']} lab" in accounts
    assert f"{told['local']['slurm_id']} lab" not in accounts
    for name, folder in (("local", str(work)), ("big", f"{work}.big")):
        results = f"{folder}/results/b-20260101000000"
        assert finish(umpteen, results) == {"succeeded": 1}
        assert umpteen("logs", results, "a").stdout == f"{name} {folder}\n"


def test_options_of_a_machine_that_take_no_value_are_asked_for(
    umpteen: Umpteen, slurm: SlurmCluster, put: Callable[..., Path]
) -> None:
    config = umpteen.home / ".config" / "umpteen" / "config.toml"
    config.write_text(config.read_text().replace('time = "10"', "hold = true\nrequeue = true"))
    put({"a": {"script": "true", "slurm": {"no_requeue": True}}})
    number = submit(umpteen, "b")["a"]["slurm_id"]
    shown = slurm.ask("scontrol", "show", "job", str(number)).stdout
    assert "Reason=JobHeldUser" in shown
    assert "Requeue=0" in shown


@pytest.mark.usefixtures("slurm")
def test_line_21_values_arrive_unchanged(umpteen: Umpteen, work: Path) -> None:
    del work
    text = "a  'b' \"c\" $HOME `id` \\ *"
    done = umpteen("schedule", "app", f"--text={text}", "--time=5", "--submit")
    assert done.returncode == 0, done.stderr
    assert finish(umpteen, "app") == {"succeeded": 1}
    assert f"--text={text}" in json.loads(umpteen("logs", "app", "app").stdout)["argv"]


@pytest.mark.usefixtures("slurm")
def test_line_23_log_lies_where_slurm_would_write_it(
    umpteen: Umpteen, put: Callable[..., Path], work: Path
) -> None:
    put({
        "a": {"script": f"echo out; echo err >&2; touch begun; {WAIT}; echo last"},
        "own": {"script": "echo out; echo err >&2",
                "slurm": {"output": "%x-%j.log", "error": "%x.err"}},
    })  # fmt: skip
    told = submit(umpteen, "b")
    number = told["a"]["slurm_id"]
    assert told["a"]["log"] == str(work / "slurm" / f"a-{number}.out")
    wait_until((umpteen.folder / "begun").exists)
    wait_until(lambda: sorted(read_log(told["a"]).split()) == ["err", "out"])  # while it runs
    umpteen.write("go", "")
    assert finish(umpteen) == {"succeeded": 2}
    assert sorted(read_log(told["a"]).split()) == ["err", "last", "out"]
    assert umpteen("logs", "b", "a").stdout == "out\nlast\n"
    assert (umpteen.folder / f"own-{told['own']['slurm_id']}.log").read_text() == "out\n"
    assert (umpteen.folder / "own.err").read_text() == "err\n"


@pytest.mark.usefixtures("slurm")
def test_log_has_what_a_script_says_when_it_is_cancelled(
    umpteen: Umpteen, put: Callable[..., Path]
) -> None:
    put({"a": {"script": "trap 'echo asked; exit 0' TERM; touch begun; sleep 600 & wait"}})
    told = submit(umpteen, "b")
    wait_until((umpteen.folder / "begun").exists)
    assert umpteen("cancel", "b").returncode == 0
    assert read_log(told["a"]) == "asked\n"


@pytest.mark.usefixtures("slurm")
def test_array_is_a_task_for_each_index(umpteen: Umpteen, put: Callable[..., Path]) -> None:
    said = "echo $SLURM_ARRAY_TASK_ID of $SLURM_ARRAY_TASK_COUNT $SLURM_ARRAY_TASK_MAX"
    put({
        "sim": {"script": said, "slurm": {"array": "1-5:2%1", "output": "%x.%a.log"}},
        "join": {"script": "cat sim.*.log; echo ${SLURM_ARRAY_TASK_ID-none}",
                 "dependencies": ["sim"]},
    })  # fmt: skip
    told = submit(umpteen, "b")
    assert (told["sim"]["tasks"], told["join"]["tasks"]) == (3, 1)
    assert finish(umpteen) == {"succeeded": 4}
    said = "".join(f"{index} of 3 5\n" for index in (1, 3, 5))
    assert umpteen("logs", "b", "join").stdout == f"{said}none\n"


def test_job_of_several_nodes_gets_them(
    umpteen: Umpteen, slurm: SlurmCluster, put: Callable[..., Path]
) -> None:
    put({"a": {"script": "echo $SLURM_NNODES $SLURM_NTASKS",
               "slurm": {"nodes": 2, "tasks": 2, "partition": "main"}}})  # fmt: skip
    del slurm
    submit(umpteen, "b")
    assert finish(umpteen) == {"succeeded": 1}
    assert umpteen("logs", "b", "a").stdout == "2 2\n"


def test_line_29_flags_count_more_than_the_entry_of_a_machine(
    umpteen: Umpteen, slurm: SlurmCluster, put: Callable[..., Path], work: Path
) -> None:
    put({"a": {"script": "echo $LOADED $MILEX"}})
    told = submit(
        umpteen, "b", "--machine=big", f"--path={work}.flag", "--slurm_account=other",
        "--env_command=export LOADED=flag",
    )  # fmt: skip
    accounts = slurm.ask("squeue", "-h", "--states=all", "-o", "%F %a").stdout.split("\n")
    assert f"{told['a']['slurm_id']} other" in accounts
    assert finish(umpteen) == {"succeeded": 1}
    assert umpteen("logs", "b", "a").stdout == f"flag {work}.flag\n"


@pytest.mark.parametrize("is_configured", [True, False], ids=["entry", "flags"])
@pytest.mark.parametrize("is_alias", [True, False], ids=["alias", "url and key"])
def test_line_28_and_30_bundle_goes_to_a_machine_behind_ssh(
    umpteen: Umpteen, front: Ssh, put: Callable[..., Path], is_configured: bool, is_alias: bool
) -> None:
    put({"a": {"script": "echo $LOADED"}, "b": {"script": "echo last", "dependencies": ["a"]}})
    there, keys = front.sftp.folder, front.sftp.keys
    host = {"hostname": "there"}
    if not is_alias:
        host = {
            "hosturl": "127.0.0.1", "username": front.sftp.user, "key_path": str(keys / "user_key"),
        }  # fmt: skip
        (keys / "config").write_text(  # which knows neither who logs in nor by which key
            f"Port {front.sftp.port}\nUser nobody-here\nIdentityFile none\nIdentitiesOnly yes\n"
            f"UserKnownHostsFile {keys}/known_hosts\nControlPath /nowhere/shared\n"
        )
    said = {**host, "path": str(there), "slurm_account": "lab",
            "env_command": "export LOADED=there"}  # fmt: skip
    if is_configured:
        umpteen.home.joinpath(".milexconfig").write_text(json.dumps({"lab": said}))
        words = ["--machine", "lab"]
    else:
        words = [f"--{name}={value}" for name, value in said.items()]
    told = submit(umpteen, "b", *words)
    assert finish(umpteen) == {"succeeded": 2}
    assert umpteen("logs", "b", "a").stdout == "there\n"
    assert read_log(told["b"]) == "last\n"
    assert told["b"]["log"] == f"{there}/slurm/b-{told['b']['slurm_id']}.out"


def test_line_32_refusal_of_sbatch_behind_ssh_is_shown(
    umpteen: Umpteen, front: Ssh, put: Callable[..., Path]
) -> None:
    put({"a": {"script": "true", "slurm": {"partition": "nowhere"}}})
    done = umpteen("submit", "b", "--hostname=there", f"--path={front.sftp.folder}")
    assert done.returncode == 3
    assert "invalid partition specified: nowhere" in done.stderr


def test_line_31_unknown_dependency_is_refused_before_submitting(
    umpteen: Umpteen, slurm: SlurmCluster, put: Callable[..., Path], work: Path
) -> None:
    path = put({"prep": {"script": "true"}, "a": {"script": "true", "dependencies": ["prp"]}})
    done = umpteen("submit", "b")
    assert done.returncode == 2
    assert f"{path}: the job 'a' depends on 'prp'" in done.stderr
    assert "did you mean 'prep'?" in done.stderr
    assert list_queued(slurm) == []
    assert not (work / "slurm").exists()


def test_line_32_refusal_of_sbatch_is_shown_and_nothing_stays_queued(
    umpteen: Umpteen, slurm: SlurmCluster, put: Callable[..., Path]
) -> None:
    jobs: Jobs = {
        "a": {"script": WAIT},
        "b": {"script": "true", "dependencies": ["a"], "slurm": {"partition": "nowhere"}},
    }
    put(jobs)
    done = umpteen("submit", "b")
    assert done.returncode == 3
    assert "invalid partition specified: nowhere" in done.stderr
    wait_until(lambda: list_queued(slurm) == [])
    put(jobs | {"b": {"script": "true", "dependencies": ["a"]}})
    umpteen.write("go", "")
    submit(umpteen, "b")
    assert finish(umpteen) == {"succeeded": 2}


def test_bundle_without_jobs_is_said_to_have_none(
    umpteen: Umpteen, put: Callable[..., Path], work: Path
) -> None:
    put({})
    done = umpteen("submit", "b")
    assert (done.returncode, done.stdout) == (0, "the bundle b has no jobs\n")
    assert not (work / "results").exists()


def test_unknown_bundles_and_machines_are_answered_with_the_nearest(
    umpteen: Umpteen, put: Callable[..., Path]
) -> None:
    put({"a": {"script": "true"}}, name="sweep")
    umpteen.write("job.yaml", "tasks: [true]\n")
    for words, said, hint in (
        (["swep"], "there is no bundle 'swep'", "did you mean 'sweep'?"),
        (["sweep", "--machine", "bog"], "there is no machine 'bog'", "did you mean 'big'?"),
        (["sweep", "--at", "1"], "there is no bundle 'sweep' of 1", "there are 20260101000000"),
        (["job.yaml"], "there is no bundle 'job.yaml'", "umpteen run job.yaml --detach"),
    ):
        done = umpteen("submit", *words)
        assert (done.returncode, said in done.stderr, hint in done.stderr) == (2, True, True), (
            done.stderr
        )
