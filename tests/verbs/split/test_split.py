"""A whole split: what is refused before anything is written, and what is there afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from umpteen.errors import InputError, SettingsError, UmpteenError
from umpteen.formats.syncs import Sync
from umpteen.store.layout import SPLIT
from umpteen.system.locks import leases_folder
from umpteen.verbs.split import SplitRequest, split

Ask = Callable[..., SplitRequest]


@pytest.fixture
def ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """A request for five runs, two at once, with leases of this test's own."""
    monkeypatch.setenv("UMPTEEN_LEASES", str(tmp_path / "leases"))
    monkeypatch.chdir(tmp_path)
    spec = {"name": "sweep", "instance_type": "large", "scale": 1, "start_script": "pip list\n"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"type": "job", "spec": spec}))
    runs = [{"cmd": f"echo {n}"} for n in range(5)]
    top = str(tmp_path / "results")
    (tmp_path / "batch.json").write_text(
        json.dumps({"nprocs": 2, "remote_output_path": top, "runs": runs})
    )

    def ask(**said: Any) -> SplitRequest:
        return SplitRequest(
            **{"recipe": "recipe.yaml", "batch": "batch.json", "folder": "chunks", **said}
        )

    return ask


def ignore(*_: object) -> None:
    """Show nobody what is read."""


def finish(tmp_path: Path, run: int, code: int) -> None:
    """Leave what a run leaves that has ended."""
    folder = tmp_path / "results" / str(run)
    folder.mkdir(parents=True)
    (folder / "status_code").write_text(str(code))


def read_commands(tmp_path: Path) -> list[list[str]]:
    """Of the runs of each chunk."""
    chunks = tmp_path / "chunks"
    count = len(list(chunks.glob("[0-9]*.json")))
    documents = [json.loads((chunks / f"{n}.json").read_bytes()) for n in range(count)]
    return [[run["cmd"] for run in document["runs"]] for document in documents]


def read_spec(tmp_path: Path) -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load((tmp_path / "chunks" / "recipe.yaml").read_text())["spec"]
    return spec


def test_split_gives_each_slot_three_runs_of_a_chunk(ask: Ask, tmp_path: Path) -> None:
    done = split(ask(batch_size=None, nprocs=9), ignore)
    assert (done.nprocs, done.batch_size, done.runs, done.chunks) == (2, 6, 5, 1)
    folder = str(tmp_path / "chunks")
    assert (done.folder, done.recipe, done.outcome) == (folder, f"{folder}/recipe.yaml", None)
    assert read_commands(tmp_path) == [[f"echo {n}" for n in range(5)]]


def test_split_makes_chunks_of_the_size_that_is_given(ask: Ask, tmp_path: Path) -> None:
    done = split(ask(batch_size=2), ignore)
    assert (done.batch_size, done.chunks) == (2, 3)
    assert read_commands(tmp_path) == [["echo 0", "echo 1"], ["echo 2", "echo 3"], ["echo 4"]]
    chunk = json.loads((tmp_path / "chunks" / "0.json").read_bytes())
    assert (chunk["nprocs"], chunk["remote_output_path"]) == (2, str(tmp_path / "results"))
    assert [run["remote_output_path"] for run in chunk["runs"]] == [
        f"{tmp_path}/results/{n}" for n in range(2)
    ]


def test_recipe_has_a_command_for_each_chunk_where_it_is_on_the_machine(
    ask: Ask, tmp_path: Path
) -> None:
    said = {"remote_folder": "/there/it's", "command": "umpteen batch", "scale": 7}
    split(ask(batch_size=3, **said), ignore)
    assert read_spec(tmp_path)["command"] == [
        """umpteen batch '/there/it'"'"'s/0.json'""", """umpteen batch '/there/it'"'"'s/1.json'"""
    ]  # fmt: skip
    assert (read_spec(tmp_path)["scale"], read_spec(tmp_path)["name"]) == (7, "sweep")


def test_recipe_fetches_what_was_sent_before_its_own_start_script(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    done = split(ask(syncs=[Sync("code", "/there")]), ignore)
    base = f"{tmp_path}/results/{SPLIT}"
    urls = [f"{base}/there/data.tar.gz", f"{base}/home/jovyan/workspace/chunks/data.tar.gz"]
    assert [(sent.source, sent.dest, sent.url) for sent in done.sent] == [
        ("code", "/there", urls[0]), ("chunks", "/home/jovyan/workspace/chunks", urls[1])
    ]  # fmt: skip
    script = read_spec(tmp_path)["start_script"]
    places = [script.index(text) for text in (*urls, "pip list")]
    assert places == sorted(places)


def test_archive_of_the_chunks_has_the_new_ones_alone(ask: Ask, tmp_path: Path) -> None:
    split(ask(batch_size=1), ignore)
    (tmp_path / "chunks" / "notes").touch()
    done = split(ask(batch_size=3), ignore)
    with tarfile.open(done.sent[-1].url) as tar:
        assert tar.getnames() == ["0.json", "1.json", "notes"]
        sent = tar.extractfile("1.json")
        assert sent
        assert sent.read() == (tmp_path / "chunks" / "1.json").read_bytes()
    assert sorted(os.listdir(tmp_path / "chunks")) == ["0.json", "1.json", "notes", "recipe.yaml"]


def test_archives_go_where_it_is_said_and_show_what_is_read(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "file").write_text("12345")
    seen = []
    base = str(tmp_path / "base")
    done = split(ask(syncs=[Sync("code", "/there")], base=base), lambda *found: seen.append(found))
    assert done.sent[0].url == f"{base}/there/data.tar.gz"
    assert os.path.exists(done.sent[0].url)
    # First to be measured, then to be sent; of the chunks, too.
    assert [found for found in seen if found[1:] == (1, 5)] == [("code", 1, 5)] * 2
    assert ("chunks", 1) in [found[:2] for found in seen]


@pytest.mark.parametrize(
    ("said", "commands"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"skip_completed": True}, [2, 3, 4, 1]),
        ({"skip_failures": True}, [2, 3, 4, 0]),
        ({"skip_completed": True, "max_runs": 2}, [2, 3]),
    ],
)
def test_split_skips_what_has_come_to_an_end(
    ask: Ask, tmp_path: Path, said: dict[str, Any], commands: list[int]
) -> None:
    finish(tmp_path, 0, 0)
    finish(tmp_path, 1, 3)
    done = split(ask(**said), ignore)
    assert read_commands(tmp_path) == [[f"echo {n}" for n in commands]]
    assert done.runs == len(commands)
    if said:
        assert done.outcome
        assert [len(runs) for runs in done.outcome] == [3, 1, 1]


def test_results_are_looked_for_where_it_is_said(ask: Ask, tmp_path: Path) -> None:
    finish(tmp_path, 0, 0)
    (tmp_path / "results").rename(tmp_path / "moved")
    split(ask(skip_completed=True, top=str(tmp_path / "moved")), ignore)
    assert read_commands(tmp_path) == [["echo 1", "echo 2", "echo 3", "echo 4"]]


# --- what is refused ----------------------------------------------------------------------------


def expect_nothing_written(ask: Ask, tmp_path: Path, error: type[UmpteenError], **said: Any) -> str:
    """What a split is refused for."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error) as raised:
        split(ask(**said), ignore)
    assert sorted(tmp_path.rglob("*")) == before
    return str(raised.value)


def test_recipe_that_is_none_is_refused(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "none.yaml").write_text("[1]\n")
    with pytest.raises(InputError) as raised:
        split(ask(recipe="none.yaml"), ignore)
    hint = "give a recipe: instance_type, scale and start_script below 'spec'"
    assert raised.value.hint == hint


def test_batch_that_a_chunk_would_replace_is_refused(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "batch.json").rename(tmp_path / "0.json")
    said = expect_nothing_written(ask, tmp_path, InputError, batch="0.json", folder=".")
    assert "would be replaced by a chunk" in said


def test_recipe_and_batch_without_what_is_needed_are_refused(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "bare.yaml").write_text("spec: {name: x, scale: 1}\n")
    said = expect_nothing_written(ask, tmp_path, InputError, recipe="bare.yaml")
    assert "no 'instance_type' below 'spec'" in said
    batch = {"remote_output_path": "/results", "runs": [{"cmd": "echo"}]}
    (tmp_path / "bare.json").write_text(json.dumps(batch))
    said = expect_nothing_written(ask, tmp_path, InputError, batch="bare.json")
    assert "has no 'nprocs'" in said


def test_folders_that_cannot_be_sent_are_refused(ask: Ask, tmp_path: Path) -> None:
    gone = [Sync("gone", "/there")]
    assert "no such folder" in expect_nothing_written(ask, tmp_path, InputError, syncs=gone)
    (tmp_path / "code").mkdir()
    twice = [Sync("code", "/home/jovyan/workspace/chunks")]
    said = expect_nothing_written(ask, tmp_path, SettingsError, syncs=twice)
    assert "code and chunks would both be at" in said


def test_runs_that_are_none_are_refused(ask: Ask, tmp_path: Path) -> None:
    batch = {"nprocs": 1, "remote_output_path": "/results", "runs": [{"cmd": " "}]}
    (tmp_path / "bare.json").write_text(json.dumps(batch))
    said = expect_nothing_written(ask, tmp_path, InputError, batch="bare.json")
    assert "run 0 has no cmd" in said


def test_results_that_cannot_be_those_of_a_job_are_refused(ask: Ask, tmp_path: Path) -> None:
    said = {"top": "sfs://organization", "base": str(tmp_path / "base")}
    assert "names no user" in expect_nothing_written(ask, tmp_path, SettingsError, **said)


@pytest.mark.parametrize("rules", ["1.json\n", "*\n"])
def test_rules_that_leave_out_chunks_are_refused_and_old_ones_stay(
    ask: Ask, tmp_path: Path, rules: str
) -> None:
    split(ask(batch_size=5), ignore)
    (tmp_path / "chunks" / ".gitignore").write_text(rules)
    with pytest.raises(InputError, match="leaves out chunks"):
        split(ask(batch_size=1), ignore)
    assert read_commands(tmp_path) == [[f"echo {n}" for n in range(5)]]


def test_split_of_a_folder_is_alone_there_however_it_is_named(ask: Ask, tmp_path: Path) -> None:
    tried = []

    def list_locks() -> list[Path]:
        return list(Path(leases_folder()).glob("split-*"))

    def try_lock(*_: object) -> None:
        (lock,) = list_locks()
        with lock.open() as held, contextlib.suppress(BlockingIOError):
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            tried.append("is free")
        tried.append("was tried")

    split(ask(), try_lock)
    (tmp_path / "link").symlink_to(tmp_path / "chunks")
    split(ask(folder="link"), try_lock)
    assert set(tried) == {"was tried"}
    split(ask(folder="others"), ignore)
    assert len(list_locks()) == 2
