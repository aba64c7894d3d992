from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from umpteen.errors import InputError, SettingsError
from umpteen.formats.files import open_document
from umpteen.formats.saturn_batch import BatchFile, Run, read_batch
from umpteen.formats.saturn_recipe import Recipe, read_recipe
from umpteen.formats.syncs import Sync
from umpteen.store.layout import SPLIT
from umpteen.verbs.split.archives import check_archives, place_archive
from umpteen.verbs.split.chunks import check_folder, list_instead, put_in_place, write_chunks
from umpteen.verbs.split.request import (
    SplitRequest,
    choose_base,
    choose_changes,
    choose_nprocs,
    choose_runs,
)
from umpteen.verbs.summarize_batch import SortedRuns

RECIPE = (
    "type: job\nspec:\n  name: sweep\n  owner: me\n  instance_type: large\n  start_script: ''\n"
)
RUNS = [Run(cmd=f"echo {n}") for n in range(4)]
SORTED = SortedRuns(unfinished=[RUNS[3]], failed=[RUNS[0]], completed=[RUNS[1], RUNS[2]])


@pytest.fixture
def ask() -> Callable[..., SplitRequest]:
    def ask(**said: Any) -> SplitRequest:
        files: dict[str, Any] = {"recipe": "r.yaml", "batch": "b.json", "folder": "/c"}
        return SplitRequest(**files, **said)

    return ask


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE)
    return read_recipe(open_document(str(file), "spec", ""))


def open_batch_with(tmp_path: Path, head: str) -> BatchFile:
    file = tmp_path / "batch.yaml"
    file.write_text(f"{head}runs:\n- cmd: echo 1\n")
    return read_batch(open_document(str(file), "runs", ""))


def test_nprocs_of_the_batch_count_most(tmp_path: Path, ask: Callable[..., SplitRequest]) -> None:
    with_nprocs = open_batch_with(tmp_path, "nprocs: 4\n")
    assert choose_nprocs(ask(nprocs=9), with_nprocs) == 4
    without = open_batch_with(tmp_path, "")
    assert choose_nprocs(ask(nprocs=9), without) == 9
    with pytest.raises(InputError, match="has no 'nprocs'"):
        choose_nprocs(ask(), without)


def test_field_that_is_nowhere_given_is_asked_for(
    recipe: Recipe, ask: Callable[..., SplitRequest]
) -> None:
    assert choose_changes(ask(scale=2, name="x"), recipe) == {"name": "x", "scale": 2}
    with pytest.raises(InputError, match="no 'scale' below 'spec'") as raised:
        choose_changes(ask(), recipe)
    assert raised.value.hint == "or give --scale"


@pytest.mark.parametrize(
    ("top", "base"),
    [
        ("/results/x", f"/results/x/{SPLIT}"),
        ("s3://bucket/x", f"s3://bucket/x/{SPLIT}"),
        ("sfs://org/me/x/y", "sfs://org/me/sweep"),
    ],
)
def test_archives_go_where_results_are_or_to_the_job(
    top: str, base: str, recipe: Recipe, ask: Callable[..., SplitRequest]
) -> None:
    assert choose_base(ask(), recipe, top) == base
    assert choose_base(ask(base="s3://own/place"), recipe, top) == "s3://own/place"


@pytest.mark.parametrize(
    ("said", "places"),
    [
        ({}, [3, 0, 1, 2]),
        ({"skip_failures": True}, [3, 1, 2]),
        ({"skip_completed": True}, [3, 0]),
        ({"skip_completed": True, "skip_failures": True}, [3]),
        ({"skip_failures": True, "max_runs": 2}, [3, 1]),
    ],
)
def test_runs_that_are_not_skipped_are_chosen(
    said: dict[str, object], places: list[int], ask: Callable[..., SplitRequest]
) -> None:
    assert choose_runs(ask(**said), RUNS, SORTED) == [RUNS[place] for place in places]


def test_runs_keep_their_order_where_nothing_is_skipped(ask: Callable[..., SplitRequest]) -> None:
    assert choose_runs(ask(), RUNS, None) == RUNS


def test_archive_has_the_place_of_its_folder(recipe: Recipe) -> None:
    archive = place_archive(Sync("/home/me/code", None), recipe, "s3://own")
    assert (archive.dest, archive.url) == ("/home/me/code", "s3://own/home/me/code/data.tar.gz")


def test_archives_that_would_replace_one_another_are_refused(recipe: Recipe) -> None:
    base = "s3://own"
    one, two = (place_archive(Sync(source, "/there"), recipe, base) for source in ("/a", "/b"))
    with pytest.raises(SettingsError, match="/a and /b would both be at /there"):
        check_archives([one, two], base)


def test_chunk_never_replaces_the_batch_file(tmp_path: Path) -> None:
    check_folder(str(tmp_path), str(tmp_path / "batch.json"))
    check_folder(str(tmp_path), "/elsewhere/0.json")
    with pytest.raises(InputError, match="would be replaced by a chunk"):
        check_folder(str(tmp_path), str(tmp_path / "0.json"))


def test_new_chunks_take_the_place_of_old_ones(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    for name in ("0.json", "1.json", "2.json", "recipe.yaml", "other.json"):
        (tmp_path / name).write_text("old")
    assert write_chunks(str(made), RUNS, 3, "/results", 2) == 2
    (made / "recipe.yaml").write_text("new")
    instead = list_instead(str(tmp_path), str(made))
    assert (instead["2.json"], instead["1.json"]) == (None, f"{made}/1.json")
    put_in_place(str(tmp_path), str(made))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "0.json", "1.json", "made", "other.json", "recipe.yaml",
    ]  # fmt: skip
    assert (tmp_path / "recipe.yaml").read_text() == "new"
