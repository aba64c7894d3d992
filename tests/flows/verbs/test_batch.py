"""`umpteen batch`: one batch file on this machine, as `sc batch` reads it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.command import Umpteen
from tests.support.processes import list_processes
from tests.support.store import list_records, read_tree
from tests.support.wait import wait_until

CMD = "python operations/pipelines/hosted/enrich_user_data.py"
YAML = """nprocs: 4
remote_output_path: {top}/
runs:
- cmd: {cmd} --start-dt 2023-12-31 --end-dt 2024-01-02 --enrich --first-seen
  remote_output_path: {top}/2024-01-01
- cmd: {cmd} --start-dt 2024-01-01 --end-dt 2024-01-03 --enrich --first-seen
  remote_output_path: {top}/2024-01-02
- cmd: {cmd} --start-dt 2024-01-02 --end-dt 2024-01-04 --enrich --first-seen
  remote_output_path: {top}/2024-01-03
"""
PYTHON = '#!/bin/sh\necho "$*"\necho "$5" > "$SATURN_RUN_LOCAL_RESULTS_DIR/end"\n'


def write_batch(umpteen: Umpteen, *commands: str, **more: Any) -> str:
    """`batch.json`, whose outputs go to `out`; its name."""
    runs = [{"cmd": cmd, "remote_output_path": f"out/{n}"} for n, cmd in enumerate(commands)]
    content = {"nprocs": 2, "remote_output_path": "out", "runs": runs, **more}
    umpteen.write("batch.json", json.dumps(content))
    return "batch.json"


def count_runs(umpteen: Umpteen) -> list[str]:
    path = umpteen.folder / "ran"
    return sorted(path.read_text().split()) if path.exists() else []


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_batch_sc_document_leaves_what_it_promises(
    umpteen: Umpteen, tmp_path: Path, form: str
) -> None:
    top = tmp_path / "sfs"
    local = tmp_path / "819b537dd41140e2a0bbd59b877486f3"
    days = {"2024-01-01": ("2023-12-31", "2024-01-02"), "2024-01-02": ("2024-01-01", "2024-01-03")}
    umpteen.write("batch.yaml", YAML.format(top=top, cmd=CMD))
    runs = [
        {
            "remote_output_path": f"{top}/{day}",
            "cmd": f"{CMD} --start-dt {start} --end-dt {end} --enrich --first-seen",
            "local_results_dir": f"{local}/{day}/",
        }
        for day, (start, end) in days.items()
    ]
    umpteen.write(
        "batch.json", json.dumps({"nprocs": 4, "remote_output_path": f"{top}/", "runs": runs})
    )
    umpteen.write("bin/python", PYTHON).chmod(0o755)

    done = umpteen(
        "batch", f"batch.{form}", env={"PATH": f"{umpteen.folder}/bin:{os.environ['PATH']}"}
    )

    assert done.returncode == 0, done.stderr
    for day, (start, end) in days.items():
        said = CMD.split(" ", 1)[1] + f" --start-dt {start} --end-dt {end} --enrich --first-seen\n"
        assert (top / day / "stdout").read_text() == said
        assert (top / day / "stderr").read_text() == ""
        assert (top / day / "status_code").read_text() == "0"
        assert (top / day / "results/end").read_text() == f"{end}\n"


def test_batch_with_failures_exits_with_0(umpteen: Umpteen) -> None:
    done = umpteen("batch", write_batch(umpteen, "true", "exit 5", "no-such-program"))
    codes = [(umpteen.folder / f"out/{n}/status_code").read_text() for n in range(3)]
    assert (done.returncode, codes) == (0, ["0", "5", "127"]), done.stderr


@pytest.mark.parametrize(("command", "code"), [("true", 0), ("exit 5", 1)])
def test_batch_strict_makes_1_of_a_failure(umpteen: Umpteen, command: str, code: int) -> None:
    done = umpteen("batch", write_batch(umpteen, "true", command), "--strict")
    assert done.returncode == code, done.stderr


def test_batch_twice_does_nothing_a_second_time(umpteen: Umpteen) -> None:
    batch = write_batch(umpteen, "echo a >> ran", "echo b >> ran")
    umpteen("batch", batch)
    before = {name: text for name, text in read_tree(umpteen.folder / "out").items()
              if ".umpteen" not in name}  # fmt: skip
    again = umpteen("batch", batch)
    after = read_tree(umpteen.folder / "out")
    assert (again.returncode, again.stderr) == (0, "2 runs are done; nothing to do\n")
    assert count_runs(umpteen) == ["a", "b"]
    assert {name: after[name] for name in before} == before


def test_batch_a_second_time_runs_what_is_not_done(umpteen: Umpteen) -> None:
    commands = [f"echo {name} >> ran" for name in "abcd"]
    batch = write_batch(umpteen, *commands, "echo e >> ran; test -e ok")
    umpteen("batch", batch)
    shutil.rmtree(umpteen.folder / "out/1")  # by hand
    (umpteen.folder / "out/2/status_code").write_text("9")  # by another tool
    umpteen.write("ok", "")
    again = umpteen("batch", batch)
    assert (again.returncode, again.stderr) == (0, "2 runs are done and left alone\n")
    assert count_runs(umpteen) == [*"abbccdee"]
    attempts = sorted((r["task"], r["attempt"]) for r in list_records(umpteen.folder / "out"))
    assert attempts == [(0, 1), (1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (4, 1), (4, 2)]
    (kept,) = (umpteen.folder / "out/4/attempts").iterdir()
    assert ((kept / "status_code").read_text(), kept.name[:2]) == ("1", "1-")
    assert umpteen("batch", batch).stderr == "5 runs are done; nothing to do\n"
    status = json.loads(umpteen("status", "out/", "--json").stdout)
    assert (status["total"], status["counts"]["succeeded"]) == (5, 5)


def test_batch_whose_start_was_killed_goes_on_with_the_rest(umpteen: Umpteen) -> None:
    waits = "echo b >> ran; until [ -e go ]; do sleep 0.05; done"
    batch = write_batch(umpteen, "echo a >> ran; exit 1", waits, nprocs=1)
    process = umpteen.start("batch", batch)
    wait_until(lambda: count_runs(umpteen) == ["a", "b"], 30)
    wait_until(lambda: bool(list_records(umpteen.folder / "out")), 30)
    process.kill()
    process.communicate()
    umpteen.write("go", "")
    again = umpteen("batch", batch)
    assert (again.returncode, again.stderr) == (0, "1 run has ended and is left alone\n")
    assert count_runs(umpteen) == ["a", "b", "b"]


def test_batch_runs_elsewhere_of_two_files_are_kept_apart(umpteen: Umpteen) -> None:
    for name in ("a", "b"):
        place = f"{umpteen.folder}/elsewhere/{name}"
        run = {"cmd": "echo x >> ran", "remote_output_path": place}
        umpteen.write(f"{name}.json", json.dumps({"remote_output_path": "out", "runs": [run]}))
        assert umpteen("batch", f"{name}.json").returncode == 0
    status = json.loads(umpteen("status", "out/", "--json").stdout)
    assert (status["total"], status["counts"]["succeeded"]) == (2, 2)


def test_batch_same_yaml_twice_does_nothing_a_second_time(umpteen: Umpteen) -> None:
    umpteen.write("b.yaml", "remote_output_path: out\nruns:\n- cmd: echo a >> ran\n")
    assert umpteen("batch", "b.yaml").returncode == 0
    assert umpteen("batch", "b.yaml").returncode == 0
    assert count_runs(umpteen) == ["a"]


def test_batch_two_files_of_one_top_are_two_batches_of_a_job(umpteen: Umpteen) -> None:
    for name in ("a", "b"):
        run = {"cmd": f"echo {name}", "remote_output_path": f"out/{name}"}
        umpteen.write(f"{name}.json", json.dumps({"remote_output_path": "out", "runs": [run]}))
        assert umpteen("batch", f"{name}.json").returncode == 0
    status = json.loads(umpteen("status", "out/", "--json").stdout)
    assert (status["total"], status["counts"]["succeeded"]) == (2, 2)


def test_batch_that_runs_already_says_who_runs_it(umpteen: Umpteen) -> None:
    batch = write_batch(umpteen, "touch begun; until [ -e go ]; do sleep 0.05; done; echo a >> ran")
    first = umpteen.start("batch", batch)
    wait_until((umpteen.folder / "begun").exists)

    second = umpteen("batch", batch)

    umpteen.write("go", "")
    _, said = first.communicate(timeout=30)
    assert (first.returncode, second.returncode) == (0, 0), said
    assert f"pid {first.pid}" in second.stderr
    assert list_records(umpteen.folder / "out")[0]["token"] in second.stderr
    assert count_runs(umpteen) == ["a"]


def test_batch_take_over_ends_the_one_that_runs(umpteen: Umpteen) -> None:
    batch = write_batch(umpteen, "[ -e go ] || { touch begun; sleep 600; }; echo a >> ran")
    first = umpteen.start("batch", batch)
    wait_until((umpteen.folder / "begun").exists)
    umpteen.write("go", "")
    second = umpteen("batch", batch, "--take-over")
    _, said = first.communicate(timeout=30)
    assert (first.returncode, second.returncode) == (0, 0), said + second.stderr
    assert count_runs(umpteen) == ["a"]
    successes = [r for r in list_records(umpteen.folder / "out") if r["state"] == "succeeded"]
    assert len(successes) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_batch_asked_to_end_records_it_and_goes_on_later(umpteen: Umpteen, number: int) -> None:
    batch = write_batch(umpteen, "[ -e go ] || { touch begun; sleep 600; }; echo a >> ran")
    first = umpteen.start("batch", batch)
    wait_until((umpteen.folder / "begun").exists)
    first.send_signal(number)
    first.communicate(timeout=30)
    assert not list_processes(umpteen)
    (record,) = list_records(umpteen.folder / "out")
    assert (record["state"], record["reason"]) == ("waiting", "interrupted")
    umpteen.write("go", "")
    assert umpteen("batch", batch).returncode == 0
    assert count_runs(umpteen) == ["a"]


def test_batch_killed_goes_on_later(umpteen: Umpteen) -> None:
    block = "[ -e go ] || { touch begun; sleep 600; }; echo b >> ran"
    batch = write_batch(umpteen, "echo a >> ran", block, nprocs=1)
    first = umpteen.start("batch", batch)
    wait_until((umpteen.folder / "begun").exists)
    wait_until(lambda: list_records(umpteen.folder / "out"))
    os.kill(first.pid, signal.SIGKILL)
    first.communicate(timeout=30)
    umpteen.write("go", "")
    again = umpteen("batch", batch)
    assert again.returncode == 0, again.stderr
    assert count_runs(umpteen) == ["a", "b"]
    assert not list_processes(umpteen)


def test_batch_of_a_store_does_what_is_left(umpteen: Umpteen) -> None:
    umpteen.write(
        "job.txt", "echo a >> ran\n[ -e go ] || { touch begun; sleep 600; }; echo b >> ran\n"
    )
    watcher = umpteen.start("run", "job.txt", "--slots", "1")
    wait_until((umpteen.folder / "begun").exists)
    watcher.send_signal(signal.SIGINT)
    watcher.communicate(timeout=30)
    umpteen.write("go", "")

    done = umpteen("batch", umpteen.store() / ".umpteen/batches/1.json")

    assert done.returncode == 0, done.stderr
    assert count_runs(umpteen) == ["a", "b"]
    assert umpteen("status", "job").returncode == 0


def test_batch_of_a_store_copied_elsewhere_is_that_stores_batch(umpteen: Umpteen) -> None:
    umpteen.write("job.txt", "echo a >> ran\n")
    umpteen("run", "job.txt")
    copy = umpteen.folder / "0.json"
    copy.write_bytes((umpteen.store() / ".umpteen/batches/1.json").read_bytes())
    assert umpteen("batch", "0.json").returncode == 0
    assert count_runs(umpteen) == ["a"]
    assert not (umpteen.store() / ".umpteen/batches/2.json").exists()


def write_runs(umpteen: Umpteen, runs: list[dict[str, Any]], form: str = "json") -> str:
    """A batch file of these runs for `out/`; its name."""
    content = {"nprocs": 2, "remote_output_path": "out/", "runs": runs}
    dump = json.dumps if form == "json" else yaml.safe_dump
    umpteen.write(f"batch.{form}", dump(content))
    return f"batch.{form}"


WORDS = "printenv SATURN_RUN_LOCAL_RESULTS_DIR SATURN_RUN_REMOTE_OUTPUT_PATH RESULTS_DIR"


@pytest.mark.parametrize("form", ["json", "yaml"])
@pytest.mark.parametrize("local", ["local/x/", "./local", "{folder}/local//", "é l/"])
@pytest.mark.parametrize("output", ["out/a/", "./out/a", "file://{folder}/out/a/", "{folder}/b//"])
def test_commands_find_what_the_file_says_as_it_says_it(
    umpteen: Umpteen, form: str, local: str, output: str
) -> None:
    local, output = (word.format(folder=umpteen.folder) for word in (local, output))
    run = {"cmd": WORDS, "remote_output_path": output, "local_results_dir": local}
    done = umpteen("batch", write_runs(umpteen, [run], form), env={"RESULTS_DIR": "/nfs/mine/"})
    assert done.stdout.splitlines() == [local, output, "/nfs/mine/"], done.stderr


def test_commands_find_a_slash_where_the_file_says_nothing(umpteen: Umpteen) -> None:
    command = f"{WORDS}; echo precious > ${{SATURN_RUN_LOCAL_RESULTS_DIR}}data.csv"
    done = umpteen("batch", write_runs(umpteen, [{"cmd": command}]))
    local, output, own = done.stdout.splitlines()
    assert (local, output) == (f"{own}/", "out/0")
    assert (umpteen.folder / "out/0/results/data.csv").read_text() == "precious\n"


def test_a_chosen_folder_for_results_stays_for_later_runs(umpteen: Umpteen) -> None:
    runs = [
        {"cmd": "mkdir $SATURN_RUN_LOCAL_RESULTS_DIR/d; echo 1 > $SATURN_RUN_LOCAL_RESULTS_DIR/d/a",
         "local_results_dir": "l0/"},
        {"cmd": "until [ -e out/0/status_code ]; do sleep 0.02; done; cat l0/d/a"},
    ]  # fmt: skip
    done = umpteen("batch", write_runs(umpteen, runs))
    assert (done.stdout, done.stderr) == ("1\n", "")
    assert (umpteen.folder / "out/0/results/d/a").read_text() == "1\n"


@pytest.mark.parametrize("is_made_up", [True, False])
def test_a_folder_for_results_that_two_runs_share_loses_nothing(
    umpteen: Umpteen, tmp_path: Path, is_made_up: bool
) -> None:
    made_up = Path(f"/tmp/{uuid.uuid4().hex}")
    local = made_up if is_made_up else tmp_path / "local"
    writes = "echo {0} > $SATURN_RUN_LOCAL_RESULTS_DIR/{0}"
    waits = "until [ -e {} ]; do sleep 0.02; done"
    second = [writes.format("b1"), waits.format("out/0/status_code"), writes.format("b2")]
    runs = [
        {"cmd": f"{waits.format(local / 'b1')}; {writes.format('a')}"},
        {"cmd": " && ".join(second)},
    ]
    for run, spelling in zip(runs, (f"{local}/", str(local)), strict=True):
        run["local_results_dir"] = spelling
    try:
        done = umpteen("batch", write_runs(umpteen, runs), "--strict")
        kept = sorted(os.listdir(umpteen.folder / "out/1/results"))
    finally:
        shutil.rmtree(made_up, ignore_errors=True)
    assert done.returncode == 0, done.stderr
    assert kept == ["a", "b1", "b2"]
    assert sorted(os.listdir(umpteen.folder / "out/0/results")) == ["a", "b1"]


@pytest.mark.parametrize("local", ["out/0/results/", "out/0", "out/", "./"])
def test_a_folder_for_results_may_hold_the_outputs_or_be_there(
    umpteen: Umpteen, local: str
) -> None:
    run = {"cmd": "echo 1 > $SATURN_RUN_LOCAL_RESULTS_DIR/a", "local_results_dir": local}
    done = umpteen("batch", write_runs(umpteen, [run]), "--strict")
    assert done.returncode == 0, done.stderr
    assert (umpteen.folder / "out/0/results/a").read_text() == "1\n"
    assert not (umpteen.folder / "out/0/results/results").exists()


def test_a_folder_for_results_is_kept_but_for_what_cannot_be(umpteen: Umpteen) -> None:
    command = (
        "echo 1 > l/a; ln -s nowhere l/b; mkfifo l/c; mkdir l/d l/e; echo 2 > l/e/f; ln -s .. l/g"
    )
    run = {"cmd": f"{command}; chmod 500 l/d l/e", "local_results_dir": "l"}
    done = umpteen("batch", write_runs(umpteen, [run]), "--strict")
    assert done.returncode == 0, done.stderr
    results = umpteen.folder / "out/0/results"
    assert sorted(os.listdir(results)) == ["a", "b", "d", "e", "g"]
    assert [os.readlink(results / name) for name in ("b", "g")] == ["nowhere", ".."]
    assert (results / "e/f").read_text() == "2\n"
    assert (results / "e").stat().st_mode & 0o777 == 0o500


@pytest.mark.parametrize("local", ["batch.json", "/proc/nowhere/x"])
def test_a_folder_for_results_that_cannot_be_made_fails_its_run_alone(
    umpteen: Umpteen, local: str
) -> None:
    runs = [{"cmd": "true", "local_results_dir": local}, {"cmd": "echo 2"}]
    done = umpteen("batch", write_runs(umpteen, runs))
    assert (done.returncode, done.stdout) == (0, "2\n")
    assert "could not prepare" in umpteen("why", "out/", "0").stdout


def test_a_folder_for_results_that_a_split_made_up_is_removed(umpteen: Umpteen) -> None:
    local = Path(f"/tmp/{uuid.uuid4().hex}")
    run = {"cmd": "echo 1 > $SATURN_RUN_LOCAL_RESULTS_DIR/a", "local_results_dir": f"{local}/"}
    assert umpteen("batch", write_runs(umpteen, [run]), "--strict").returncode == 0
    assert (umpteen.folder / "out/0/results/a").read_text() == "1\n"
    assert not local.exists()


def test_a_run_that_left_no_results_has_an_empty_folder_for_them(umpteen: Umpteen) -> None:
    umpteen("batch", write_runs(umpteen, [{"cmd": "true"}, {"cmd": "exit 3"}]))
    assert [os.listdir(umpteen.folder / f"out/{n}/results") for n in range(2)] == [[], []]


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_a_batch_without_runs_is_done(umpteen: Umpteen, form: str) -> None:
    done = umpteen("batch", write_runs(umpteen, [], form))
    assert (done.returncode, done.stdout) == (0, "")
    assert "nothing to do" in done.stderr
    assert umpteen("summarize-batch", f"batch.{form}").returncode == 0


@pytest.mark.parametrize("slots", [3, 5])
def test_batch_rank_is_unique_among_what_runs(umpteen: Umpteen, slots: int) -> None:
    command = (
        "mkdir rank.$SATURN_RUN_LOCAL_RANK || exit 1; sleep 0.03; "
        "rmdir rank.$SATURN_RUN_LOCAL_RANK; echo $SATURN_RUN_LOCAL_RANK >> ran"
    )
    done = umpteen("batch", write_batch(umpteen, *[command] * 30, nprocs=slots), "--strict")
    assert done.returncode == 0, done.stderr
    assert set(count_runs(umpteen)) == set(map(str, range(slots)))


def test_batch_results_are_known_to_the_other_verbs(umpteen: Umpteen) -> None:
    umpteen("batch", write_batch(umpteen, "echo a", "echo b >&2; exit 3"))
    assert umpteen("logs", "out/", "0").stdout == "a\n"
    assert umpteen("status", "out/").returncode == 1


def test_batch_with_relative_paths_is_found_from_elsewhere(
    umpteen: Umpteen, tmp_path: Path
) -> None:
    umpteen("batch", write_batch(umpteen, "echo out", "[ -e go ]"))
    umpteen.write("go", "")
    top = umpteen.folder / "out"
    assert umpteen("logs", top, "0", cwd=tmp_path).stdout == "out\n"
    again = umpteen("retry", top, cwd=tmp_path)
    assert "2 at a time" in again.stderr
    status = json.loads(umpteen("status", top, "--json", cwd=tmp_path).stdout)
    assert sum(status["counts"].values()) == 2


def test_batch_syncs_to_one_place_where_the_folder_of_submission_is_gone(
    umpteen: Umpteen, tmp_path: Path
) -> None:
    umpteen.write("code/a", "synced\n")
    submitted = umpteen.folder / "gone"
    submitted.mkdir()
    job = (
        "run",
        "cat $UMPTEEN_SYNCED/a; pwd",
        "--name",
        "job",
        "--sync",
        f"{umpteen.folder}/code:lib",
    )
    stored = umpteen(*job, "--results", tmp_path / "out", cwd=submitted)
    assert stored.returncode == 0, stored.stderr
    shutil.rmtree(submitted)
    shutil.rmtree(tmp_path / "out/.umpteen/records")
    done = umpteen("batch", tmp_path / "out/.umpteen/batches/1.json")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/0/stdout").read_text() == f"synced\n{umpteen.folder}/lib\n"
