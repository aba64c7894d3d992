"""The folder of a split: what is made apart, and what is put in place of older files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.verbs.split.conftest import RUNS
from umpteen.errors import InputError
from umpteen.verbs.split.chunks import (
    check_complete,
    check_folder,
    list_instead,
    put_in_place,
    temporary_folder,
    write_chunks,
    write_recipe,
)


def test_chunk_never_replaces_the_batch_file(tmp_path: Path) -> None:
    check_folder(str(tmp_path), str(tmp_path / "batch.json"))
    check_folder(str(tmp_path), "/elsewhere/0.json")
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    batch = str(tmp_path / "0.json")
    with pytest.raises(InputError, match=f": would be replaced by a chunk in {link}$") as raised:
        check_folder(str(link), batch)
    hint = "choose another folder with --local-commands-directory"
    assert (raised.value.file, raised.value.hint) == (batch, hint)


# --- what is made apart -------------------------------------------------------------------------


def test_temporary_folder_is_in_the_other_and_gone_afterwards(tmp_path: Path) -> None:
    with temporary_folder(str(tmp_path)) as made:
        assert os.path.dirname(made) == str(tmp_path)
        assert os.path.basename(made).startswith(".umpteen-split-")
        (Path(made) / "0.json").touch()
    with pytest.raises(KeyboardInterrupt), temporary_folder(str(tmp_path)):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_temporary_folder_that_is_gone_already_is_no_error(tmp_path: Path) -> None:
    with temporary_folder(str(tmp_path)) as made:
        os.rmdir(made)
    assert list(tmp_path.iterdir()) == []


def test_temporary_folders_of_the_killed_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".umpteen-split-killed" / "below").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    file = tmp_path / ".umpteen-split-file"  # is of nobody of us, and in nobody's way
    file.touch()
    with temporary_folder(str(tmp_path)) as made:
        assert set(tmp_path.iterdir()) == {Path(made), tmp_path / "other", file}


def read_chunks(folder: Path) -> list[dict[str, Any]]:
    names = sorted(os.listdir(folder), key=lambda name: int(name.removesuffix(".json")))
    return [json.loads((folder / name).read_bytes()) for name in names]


def test_chunks_have_so_many_runs_each_and_the_last_what_is_left(tmp_path: Path) -> None:
    assert write_chunks(str(tmp_path), RUNS, 3, "/results", 2) == 2
    first, second = read_chunks(tmp_path)
    assert [run["cmd"] for run in first["runs"]] == ["echo 0", "echo 1", "echo 2"]
    assert [run["cmd"] for run in second["runs"]] == ["echo 3"]
    for chunk in (first, second):
        assert (chunk["nprocs"], chunk["remote_output_path"]) == (2, "/results")
    assert sorted(os.listdir(tmp_path)) == ["0.json", "1.json"]


def test_chunks_of_two_splits_are_never_the_same(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        write_chunks(str(folder), RUNS, 2, "/results", 1)
    marks = [[str(chunk["umpteen"]) for chunk in read_chunks(folder)] for folder in folders]
    assert marks[0] == [marks[0][0]] * 2
    assert marks[0][0] != marks[1][0]


def test_recipe_is_written_beside_chunks_and_never_over_another(tmp_path: Path) -> None:
    write_recipe(str(tmp_path), "name: ü\n")
    assert (tmp_path / "recipe.yaml").read_bytes() == "name: ü\n".encode()
    with pytest.raises(FileExistsError):
        write_recipe(str(tmp_path), "")


# --- what is put in place -----------------------------------------------------------------------


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A folder in which three older chunks lie, and two new ones in `made`, with their recipe."""
    made = tmp_path / "made"
    made.mkdir()
    for name in ("0.json", "1.json", "2.json", "recipe.yaml", "other.json", "3.json.bak"):
        (tmp_path / name).write_text("old")
    for name in ("0.json", "1.json", "recipe.yaml"):
        (made / name).write_text("new")
    return made


def test_folder_is_sent_as_it_will_be(tmp_path: Path, made: Path) -> None:
    assert list_instead(str(tmp_path), str(made)) == {
        "made": None,
        "0.json": f"{made}/0.json",
        "1.json": f"{made}/1.json",
        "2.json": None,
        "recipe.yaml": f"{made}/recipe.yaml",
    }


def test_new_chunks_take_the_place_of_old_ones(tmp_path: Path, made: Path) -> None:
    put_in_place(str(tmp_path), str(made))
    assert {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()} == {
        "0.json": "new", "1.json": "new", "recipe.yaml": "new",
        "other.json": "old", "3.json.bak": "old",
    }  # fmt: skip
    assert list(made.iterdir()) == []


def test_new_chunks_never_lie_beside_old_ones_or_the_old_recipe(
    tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, seen = os.rename, []

    def look_and_rename(source: str, target: str) -> None:
        rename(source, target)
        found = {path.read_text() for path in tmp_path.glob("[0-9].json")}
        seen.append((found, (tmp_path / "recipe.yaml").read_text()))

    monkeypatch.setattr(os, "rename", look_and_rename)
    put_in_place(str(tmp_path), str(made))
    assert seen == [({"new"}, "new")] * 2


def test_chunks_that_rules_leave_out_are_missed() -> None:
    check_complete("/c", ["notes", "old/1.json", "1.json.bak"])
    message = ": a .gitignore or .umpteenignore there leaves out chunks$"
    with pytest.raises(InputError, match=message) as raised:
        check_complete("/c", ["notes", "1.json"])
    hint = "remove it, or choose another folder with --local-commands-directory"
    assert (raised.value.file, raised.value.hint) == ("/c", hint)
