"""What a task left, or somebody put there since, is no plain file: nothing hangs, it is said."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.command import Umpteen


def link_to_zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


PLANTED: dict[str, Callable[[Path], None]] = {"pipe": os.mkfifo, "link to a device": link_to_zero}


@pytest.fixture(params=PLANTED)
def plant(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    """Puts something into the place of a file."""

    def put(path: Path) -> None:
        path.unlink(missing_ok=True)
        PLANTED[request.param](path)

    return put


@pytest.fixture(autouse=True)
def _limit() -> Iterator[None]:
    signal.alarm(90)  # what hangs is to fail, not to hang
    yield
    signal.alarm(0)


def test_logs_say_what_is_no_file(umpteen: Umpteen, plant: Callable[[Path], None]) -> None:
    umpteen("run", "echo {n}", "n=1..2", "--name", "job")
    for name in ("stdout", "stderr"):
        plant(umpteen.store() / "n=1" / name)
    for flags in ((), ("--stderr",), ("--follow",), ("--json",)):
        done = umpteen("logs", "job", "n=1", *flags)
        assert done.returncode == 3, done.stderr
        assert "and no file" in done.stderr + done.stdout
    assert umpteen("logs", "job", "n=2").stdout == "2\n"


def test_export_passes_over_metrics_that_are_no_file(
    umpteen: Umpteen, plant: Callable[[Path], None]
) -> None:
    write = "printf '\\173\"a\": %d\\175' {n} > $RESULTS_DIR/metrics.json"
    umpteen("run", write, "n=1..2", "--name", "job")
    plant(umpteen.store() / "n=1/results/metrics.json")
    done = umpteen("export", "job", "--json")
    assert done.returncode == 0, done.stderr
    assert "n=1: results/metrics.json left out" in done.stderr
    assert [json.loads(line)["a"] for line in done.stdout.splitlines()] == [None, 2]


def test_status_and_why_pass_over_a_stderr_that_is_no_file(
    umpteen: Umpteen, plant: Callable[[Path], None]
) -> None:
    umpteen("run", "echo cause {n} >&2; exit 1", "n=1..2", "--name", "job")
    plant(umpteen.store() / "n=1/stderr")
    done = umpteen("status", "job", "--failures", "5")
    assert "cause 2" in done.stdout
    assert "n=1" in done.stdout
    assert umpteen("why", "job", "n=1").returncode == 0


@pytest.mark.parametrize("name", ["job.json", "handed/1.json", "handed/1.handles.json",
                                  "batches/1.json", "tasks/1.jsonl", "cancel",
                                  "records/1/START"])  # fmt: skip
@pytest.mark.parametrize("verb", [("status",), ("ls",), ("why", "n=1"), ("export",), ("run",)])
def test_a_store_whose_own_file_is_no_file_never_hangs(
    umpteen: Umpteen, plant: Callable[[Path], None], name: str, verb: tuple[str, ...]
) -> None:
    umpteen("run", "echo {n}", "n=1..2", "--name", "job")
    own = umpteen.store() / ".umpteen"
    name = name.replace("START", next((own / "records/1").iterdir()).name)
    plant(own / name)
    words = {"ls": ["ls"], "run": ["run", "echo {n}", "n=1..2", "--name", "job"]}
    done = umpteen(*words.get(verb[0], [verb[0], "job", *verb[1:]]))
    assert done.returncode in (0, 1, 2, 3)
    assert "unexpected" not in done.stderr
    if done.returncode > 1:
        assert "is damaged: it is a" in done.stderr + done.stdout


def test_pipes_in_results_of_a_batch_file_are_left_out(umpteen: Umpteen) -> None:
    given = umpteen.folder / "given"
    run = {
        "cmd": "cd $RESULTS_DIR; echo 1 > a; mkfifo p; ln -s a l",
        "local_results_dir": str(given),
    }
    umpteen.write("b.json", json.dumps({"remote_output_path": "out", "runs": [run]}))
    assert umpteen("batch", "b.json").returncode == 0
    results = umpteen.folder / "out/0/results"
    assert (umpteen.folder / "out/0/status_code").read_text() == "0"
    assert sorted(path.name for path in results.iterdir()) == ["a", "l"]
    assert (results / "l").readlink() == Path("a")


@pytest.mark.parametrize("name", ["handed/1.json", "cancel"])
@pytest.mark.parametrize("size", [5 << 30, 1 << 31])
def test_a_store_whose_own_file_is_all_holes_is_damaged(
    umpteen: Umpteen, name: str, size: int
) -> None:
    umpteen("run", "echo {n}", "n=1..2", "--name", "job")
    path = umpteen.store() / ".umpteen" / name
    with path.open("ab") as file:
        file.truncate(size)
    limited = ["bash", "-c", 'ulimit -v 2000000; exec "$@"', "bash", *umpteen.command]
    for verb in (["status", "job"], ["ls"]):
        done = subprocess.run(
            [*limited, *verb], cwd=umpteen.folder, env=umpteen.environment,
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert f"{name} is " in said
        assert "larger than" in said
        assert "MemoryError" not in said
