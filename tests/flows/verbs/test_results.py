"""`umpteen results`: the files that tasks left."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.command import Umpteen
from tests.support.store import read_tree
from tests.support.wait import wait_until


@pytest.fixture
def finished(umpteen: Umpteen) -> Umpteen:
    """A job of which two of three tasks left results, one of them failed."""
    umpteen.write(
        "job.yaml",
        "tasks:\n"
        "- name: x={x}\n"
        "  command: 'cd $RESULTS_DIR; mkdir sub; echo {x} > sub/a; echo {x} > b; exit {x}'\n"
        "  matrix: {x: [0, 1]}\n"
        "- {name: none, command: 'true'}\n",
    )
    umpteen("run", "job.yaml")
    return umpteen


def test_results_are_listed_one_path_a_line(finished: Umpteen) -> None:
    done = finished("results", "job")
    paths = done.stdout.splitlines()
    assert done.returncode == 0
    assert paths == [
        f"umpteen-results/job/x={x}/results/{name}" for x in (0, 1) for name in ("b", "sub/a")
    ]
    assert [(finished.folder / path).read_text() for path in paths] == ["0\n", "0\n", "1\n", "1\n"]
    assert done.stderr == "2 of 3 tasks left results in umpteen-results/job\n"


def test_results_from_another_folder_are_whole_paths(finished: Umpteen, tmp_path: Path) -> None:
    done = finished("results", "job", cwd=tmp_path / "home")
    assert done.stdout.splitlines()[0] == str(finished.store() / "x=0/results/b")


def test_results_json_is_an_object_a_task(finished: Umpteen) -> None:
    done = finished("results", "job", "--json")
    first, second, third = (json.loads(line) for line in done.stdout.splitlines())
    assert first == {
        "name": "x=0",
        "index": 0,
        "state": "succeeded",
        "parameters": {"x": "0"},
        "folder": str(finished.store() / "x=0"),
        "files": ["b", "sub/a"],
    }
    assert (second["state"], second["files"]) == ("failed", ["b", "sub/a"])
    assert (third["parameters"], third["files"]) == (None, [])
    assert done.stderr == ""


def test_results_of_removed_tasks_are_left_out(finished: Umpteen) -> None:
    finished.write("job.yaml", "tasks: [{name: none, command: 'true'}]")
    finished("run", "job.yaml")
    done = finished("results", "job")
    assert (done.stdout, done.stderr) == (
        "", "0 of 1 tasks left results in umpteen-results/job\n"
    )  # fmt: skip


def test_results_of_an_unknown_job_are_refused(finished: Umpteen) -> None:
    done = finished("results", "jbo")
    assert done.returncode == 2
    assert "did you mean 'job'?" in done.stderr


def test_results_that_commands_put_in_their_place_stay_beside_what_they_left(
    umpteen: Umpteen,
) -> None:
    umpteen.write(
        "job.yaml",
        "slots: 1\n"
        "tasks:\n"
        "- name: '{x}'\n"
        "  command: 'cd $OUT/{x}; mkdir results; echo own > results/own; "
        "echo {x} > $RESULTS_DIR/f{x}'\n"
        "  matrix: {x: [a, b]}\n",
    )
    done = umpteen("run", "job.yaml", env={"OUT": str(umpteen.store())})
    assert done.returncode == 0
    for name in "ab":
        found = read_tree(umpteen.store() / name / "results")
        assert found == {"own": b"own\n", f"f{name}": f"{name}\n".encode()}


def test_results_for_which_a_disk_had_no_room_come_whole_when_it_has(
    umpteen: Umpteen, own_disk: Path
) -> None:
    (own_disk / "fill").write_bytes(bytes(20 << 20))
    command = "cd $RESULTS_DIR; for i in 1 2 3 4; do head -c 6000000 /dev/zero > $i; done"
    run = {"cmd": command, "remote_output_path": str(own_disk / "a")}
    file = {"nprocs": 1, "remote_output_path": str(umpteen.folder / "out"), "runs": [run]}
    umpteen.write("batch.json", json.dumps(file))
    running = umpteen.start("batch", "batch.json")
    wait_until(lambda: not shutil.disk_usage(own_disk).free)
    (own_disk / "fill").unlink()
    running.communicate(timeout=60)
    sizes = {path.name: path.stat().st_size for path in (own_disk / "a" / "results").iterdir()}
    assert sizes == dict.fromkeys("1234", 6_000_000)
