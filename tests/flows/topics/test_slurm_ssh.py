"""Jobs submitted from a machine without Slurm, through OpenSSH, to one that has it."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from tests.support.command import Umpteen
from tests.support.sftp import Ssh
from tests.support.wait import wait_until


def write_job(umpteen: Umpteen, front: Ssh, *tasks: str, **settings: Any) -> None:
    content = {
        "executor": "slurm",
        "results": front.address,
        "tasks": [{"command": task} for task in tasks],
        **settings,
    }
    umpteen.write("job.json", json.dumps(content))


def states(umpteen: Umpteen) -> Counter[str]:
    counts = json.loads(umpteen("status", "job", "--json").stdout)["counts"]
    return Counter({state: count for state, count in counts.items() if count})


def test_job_runs_there_and_its_results_come_home(umpteen: Umpteen, front: Ssh) -> None:
    write_job(umpteen, front, "echo $SLURM_JOB_PARTITION; echo a > $RESULTS_DIR/a.csv", "exit 3")
    done = umpteen("run", "job.json")
    assert done.returncode == 1, done.stderr
    assert (front.sftp.folder / "job/0/stdout").read_text() == "main\n"
    assert states(umpteen) == {"succeeded": 1, "failed": 1}
    assert umpteen("logs", "job", "0").stdout == "main\n"
    assert umpteen("results", "job", "home", "--include", "*.csv").returncode == 0
    assert (umpteen.folder / "home/0/results/a.csv").read_text() == "a\n"
    again = umpteen("results", "job", "home")
    assert "1 of them was there" in again.stderr or "were there" in again.stderr, again.stderr
    assert umpteen("retry", "job").returncode == 1


def test_folders_are_synced_and_lines_of_setup_run_first(umpteen: Umpteen, front: Ssh) -> None:
    (umpteen.folder / "code").mkdir()
    (umpteen.folder / "code/say.sh").write_text('echo "said $GREETING"\n')
    options = {"slurm": {"setup": ['GREETING="it\'s"', "export GREETING"]}}
    write_job(umpteen, front, "sh say.sh", executor=options, file_syncs=[{"src": "code"}])
    done = umpteen("run", "job.json")
    assert done.returncode == 0, done.stderr
    assert umpteen("logs", "job", "0").stdout == "said it's\n"


def test_job_goes_on_while_the_laptop_sleeps_and_is_cancelled(umpteen: Umpteen, front: Ssh) -> None:
    folder = umpteen.folder
    write_job(umpteen, front, f"touch {folder}/begun; sleep 600")
    assert umpteen("run", "job.json", "--detach").returncode == 0
    wait_until((folder / "begun").exists)
    assert "1 running" in umpteen("status", "job").stdout
    assert umpteen("cancel", "job").returncode == 0
    assert states(umpteen) == {"cancelled": 1}


def test_machine_of_the_config_is_one_flag(umpteen: Umpteen, front: Ssh) -> None:
    key = front.sftp.keys / "user_key"
    lines = [
        "[machines.lab]",
        'host = "there"',
        f'path = "{front.sftp.folder}"',
        f'key_path = "{key}"',
        """env_command = "export SAID='by the lab'" """,
        "[machines.lab.slurm]",
        'comment = "from the lab"',
        'time = "10m"',
    ]
    config = umpteen.home / ".config/umpteen/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text("\n".join(lines) + "\n")
    umpteen.write("job.json", json.dumps({"tasks": [{"command": "echo $SAID"}]}))
    done = umpteen("run", "job.json", "--machine", "lab")
    assert done.returncode == 0, done.stderr
    assert (front.sftp.folder / "results/job/0/stdout").read_text() == "by the lab\n"
    assert umpteen("logs", "job", "0").stdout == "by the lab\n"
    script = next((front.sftp.folder / "results/job/.umpteen/slurm").glob("*/0.sh")).read_text()
    assert "#SBATCH --time=10:00" in script
    assert "from the lab" in script
    nearest = umpteen("run", "job.json", "--machine", "lap")
    assert nearest.returncode == 2
    assert "did you mean 'lab'?" in nearest.stderr
