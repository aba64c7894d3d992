"""Folders and links that others have put where results go: refused, or replaced, never followed."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.command import Umpteen
from tests.support.store import read_tree
from tests.support.wait import wait_until

STRANGER = 4242

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def victim(umpteen: Umpteen) -> Path:
    """A folder that is nobody's business, beside the one in which all may write."""
    folder = umpteen.folder.parent / "victim"
    folder.mkdir()
    for name in ("stdout", "stderr", "status_code", "passwd"):
        (folder / name).write_text("mine")
    return folder


def run(umpteen: Umpteen) -> subprocess.CompletedProcess[str]:
    return umpteen("run", "echo hi; echo 1 > $RESULTS_DIR/n", "n=1..3", "--name", "job")


def read_states(umpteen: Umpteen) -> dict[str, tuple[str, str]]:
    rows = map(json.loads, umpteen("export", "job", "--json").stdout.splitlines())
    return {row["name"]: (row["state"], row["reason"] or "") for row in rows}


def give_away(path: Path) -> None:
    os.chown(path, STRANGER, STRANGER, follow_symlinks=False)


def own_the_store(store: Path, _: Path) -> None:
    store.mkdir(parents=True)
    give_away(store)


def own_umpteen(store: Path, _: Path) -> None:
    (store / ".umpteen").mkdir(parents=True)
    give_away(store / ".umpteen")


def link_the_store(store: Path, victim: Path) -> None:
    store.parent.mkdir()
    store.symlink_to(victim)
    give_away(store)


def link_above(store: Path, victim: Path) -> None:
    store.parent.symlink_to(victim)
    give_away(store.parent)


@as_root
@pytest.mark.parametrize("plant", [own_the_store, own_umpteen, link_the_store, link_above])
@pytest.mark.parametrize("verb", ["run", "batch"])
def test_nothing_is_run_in_a_store_of_others(
    umpteen: Umpteen, victim: Path, plant: Callable[[Path, Path], None], verb: str
) -> None:
    umpteen.folder.chmod(0o777)
    store = umpteen.folder / "umpteen-results/job"
    plant(store, victim)
    before = read_tree(victim), sorted(umpteen.folder.rglob("*"))
    if verb == "run":
        done = run(umpteen)
    else:
        content = {"remote_output_path": str(store), "runs": [{"cmd": "touch ran"}]}
        file = umpteen.folder.parent / "b.json"
        file.write_text(json.dumps(content))
        done = umpteen("batch", str(file))
    assert done.returncode == 3, done.stderr
    assert f"uid {STRANGER}" in done.stderr
    assert "hint: " in done.stderr
    assert (read_tree(victim), sorted(umpteen.folder.rglob("*"))) == before


@as_root
@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "job.json"),
        ("retry", "job"),
        ("collect", "job"),
        ("cancel", "job"),
        ("batch", "JOB"),
    ],
)
def test_no_verb_acts_on_a_store_that_went_to_somebody_else(
    umpteen: Umpteen, arguments: tuple[str, ...]
) -> None:
    tasks = [{"name": "n=1", "command": "echo run >> ledger; exit 1"}]
    umpteen.write("job.json", json.dumps({"tasks": tasks}))
    umpteen("run", "job.json")
    own = umpteen.store() / ".umpteen"
    if arguments[0] in ("collect", "cancel"):  # of which something is left
        records = next((own / "records/1").iterdir())
        records.write_text("".join(records.read_text().splitlines(keepends=True)[:1]))
    give_away(own)
    batch = str(own / "batches/1.json")
    done = umpteen(*[batch if word == "JOB" else word for word in arguments])
    assert done.returncode == 3, done.stderr
    assert f"{own} belongs to uid {STRANGER}" in done.stderr
    assert (umpteen.folder / "ledger").read_text() == "run\n"
    assert umpteen("status", "job").returncode in (0, 1)  # to look on is free


@as_root
def test_a_store_of_who_called_sudo_is_ours(umpteen: Umpteen) -> None:
    run(umpteen)
    for path in (umpteen.store(), umpteen.store() / ".umpteen"):
        give_away(path)
    called = {"SUDO_UID": str(STRANGER)}
    done = umpteen("run", "echo 2", "n=1..3", "--name", "job", env=called)
    assert done.returncode == 0, done.stderr


def test_a_store_behind_a_link_of_ours_is_ours(umpteen: Umpteen) -> None:
    (umpteen.folder / "disk").mkdir()
    umpteen.store().parent.symlink_to(umpteen.folder / "disk")
    assert run(umpteen).returncode == 0
    assert (umpteen.folder / "disk/job/n=1/stdout").read_text() == "hi\n"


@pytest.mark.parametrize("name", ["n=2", "a/n=2"])
def test_a_tasks_folder_that_is_a_link_is_not_written_in(
    umpteen: Umpteen, victim: Path, name: str
) -> None:
    tasks = [{"name": each, "command": "echo hi"} for each in (name, "other")]
    umpteen.write("job.json", json.dumps({"tasks": tasks}))
    umpteen.store().mkdir(parents=True)
    link = umpteen.store() / name.partition("/")[0]
    link.symlink_to(victim)
    before = read_tree(victim)
    assert umpteen("run", "job.json").returncode == 1
    reason = f"could not prepare {link}: it is a link, and is not followed"
    assert read_states(umpteen) == {name: ("failed", reason), "other": ("succeeded", "")}
    assert read_tree(victim) == before


@as_root
@pytest.mark.parametrize("place", ["n=2", "n=2/attempts"])
def test_a_tasks_folder_of_others_is_not_written_in(umpteen: Umpteen, place: str) -> None:
    folder = umpteen.store() / place
    folder.mkdir(parents=True)
    (umpteen.store() / "n=2/stdout").write_text("theirs")
    give_away(folder)
    run(umpteen)
    reason = f"could not prepare {folder}: it belongs to uid {STRANGER}"
    assert read_states(umpteen)["n=2"] == ("failed", reason)
    assert (umpteen.store() / "n=2/stdout").read_text() == "theirs"


@pytest.mark.parametrize("name", ["stdout", "stderr", "status_code", "results"])
def test_an_output_that_is_a_link_is_replaced(umpteen: Umpteen, victim: Path, name: str) -> None:
    folder = umpteen.store() / "n=2"
    folder.mkdir(parents=True)
    (folder / name).symlink_to(victim / (name if name != "results" else "."))
    before = read_tree(victim)
    assert run(umpteen).returncode == 0
    assert not (folder / name).is_symlink()
    assert (folder / "stdout").read_text() == "hi\n"
    assert (folder / "status_code").read_text() == "0"
    assert (folder / "results/n").read_text() == "1\n"
    assert read_tree(victim) == before


@pytest.mark.parametrize("name", ["status_code", "stdout"])
def test_an_output_that_becomes_a_link_meanwhile_is_not_written_through(
    umpteen: Umpteen, victim: Path, name: str
) -> None:
    umpteen.write("job.json", json.dumps({
        "output_limit": "1k", "tasks": [{"name": "t", "command":
            "touch began; until test -e go; do sleep 0.05; done; head -c 5000 /dev/zero",
        }]}))  # fmt: skip
    umpteen("run", "job.json", "--detach", "-q")
    wait_until((umpteen.folder / "began").exists)
    big = victim / "passwd"
    big.write_bytes(b"x" * 9000)
    planted = umpteen.store() / "t" / name
    planted.unlink(missing_ok=True)
    planted.symlink_to(big)
    (umpteen.folder / "go").touch()
    umpteen("collect", "job", "-q")
    assert big.read_bytes() == b"x" * 9000
    assert not (umpteen.store() / "t/status_code").is_symlink()


def test_a_tasks_folder_that_becomes_a_link_meanwhile_is_not_written_in(
    umpteen: Umpteen, victim: Path
) -> None:
    command = "touch began; until test -e go; do sleep 0.05; done; echo 1 > $RESULTS_DIR/n"
    umpteen("run", command, "--name", "job", "--detach", "-q")
    wait_until((umpteen.folder / "began").exists)
    folder = umpteen.store() / "0"
    folder.rename(umpteen.folder / "moved")
    folder.symlink_to(victim)
    before = read_tree(victim)
    (umpteen.folder / "go").touch()
    umpteen("collect", "job", "-q")
    reason = f"could not keep its files: it is a link, and is not followed: {folder}"
    assert list(read_states(umpteen).values()) == [("failed", reason)]
    assert read_tree(victim) == before


def test_results_that_become_a_link_meanwhile_are_replaced(umpteen: Umpteen, victim: Path) -> None:
    results = umpteen.store() / "0" / "results"
    before = read_tree(victim)
    done = umpteen("run", f"ln -s {victim} {results}; echo 1 > $RESULTS_DIR/n", "--name", "job")
    assert done.returncode == 0
    assert not results.is_symlink()
    assert read_tree(results) == {"n": b"1\n"}
    assert read_tree(victim) == before
