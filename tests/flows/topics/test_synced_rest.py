"""What a runner left has the folders that were synced, whoever submits it."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.support.command import Umpteen
from tests.support.processes import find_runners
from tests.support.wait import wait_until

WAITS = "touch began; until [ -e go ]; do sleep 0.05; done; cat {there}/f"


@pytest.mark.parametrize("second", ["none", "collect", "run"])
def test_rest_of_a_job_whose_runner_was_killed_is_synced(
    umpteen: Umpteen, tmp_path: Path, second: str
) -> None:
    there = tmp_path / "there"
    umpteen.write("code/f", "synced\n")
    command = ["run", WAITS.format(there=there), "--name", "job", "--sync", f"code:{there}"]
    with umpteen.start(*command) as watcher:
        wait_until((umpteen.folder / "began").exists)
        if second != "none":
            watcher.kill()
        shutil.rmtree(there)
        for pid in find_runners(umpteen):
            os.kill(pid, signal.SIGKILL)
        (umpteen.folder / "go").touch()
        said = watcher.communicate()[1]
    if second == "none":
        assert watcher.returncode == 0, said
    else:
        done = umpteen(*({"collect": ["collect", "job"], "run": command}[second]))
        assert done.returncode == 0, done.stderr
    assert (umpteen.store() / "0/stdout").read_text() == "synced\n"
    for path in (umpteen.store() / ".umpteen/batches").iterdir():
        assert json.loads(path.read_bytes())["umpteen"]["synced"], path
