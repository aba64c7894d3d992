"""What follows from recipe and batch alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.verbs.split.conftest import RECIPE, RUNS
from umpteen.errors import InputError
from umpteen.formats.files import open_document
from umpteen.formats.saturn_batch import BatchFile, read_batch
from umpteen.formats.saturn_recipe import Recipe
from umpteen.store.layout import SPLIT
from umpteen.verbs.split.request import (
    SplitRequest,
    choose_base,
    choose_changes,
    choose_nprocs,
    choose_runs,
)
from umpteen.verbs.summarize_batch import SortedRuns

SORTED = SortedRuns(unfinished=[RUNS[3]], failed=[RUNS[0]], completed=[RUNS[1], RUNS[2]])


@pytest.fixture
def ask() -> Callable[..., SplitRequest]:
    def ask(**said: Any) -> SplitRequest:
        files: dict[str, Any] = {"recipe": "r.yaml", "batch": "b.json", "folder": "/c"}
        return SplitRequest(**files, **said)

    return ask


def open_batch_with(tmp_path: Path, head: str) -> BatchFile:
    file = tmp_path / "batch.yaml"
    file.write_text(f"{head}runs:\n- cmd: echo 1\n")
    return read_batch(open_document(str(file), "runs", ""))


def test_chunk_is_run_as_before_where_nothing_is_said(ask: Callable[..., SplitRequest]) -> None:
    assert ask().command == "sc batch"


def test_nprocs_of_the_batch_count_most(tmp_path: Path, ask: Callable[..., SplitRequest]) -> None:
    with_nprocs = open_batch_with(tmp_path, "nprocs: 4\n")
    assert choose_nprocs(ask(nprocs=9), with_nprocs) == 4
    without = open_batch_with(tmp_path, "")
    assert choose_nprocs(ask(nprocs=9), without) == 9
    with pytest.raises(InputError, match=r": has no 'nprocs'$") as raised:
        choose_nprocs(ask(), without)
    hint = "give it in the file, or --nprocs: how many runs at once on one machine"
    assert (raised.value.field, raised.value.hint) == ("nprocs", hint)


def test_fields_that_are_given_are_changed(
    recipe: Recipe, ask: Callable[..., SplitRequest]
) -> None:
    assert choose_changes(ask(scale=2), recipe) == {"scale": 2}
    said = {"name": "x", "instance_type": "small", "scale": 0}
    assert choose_changes(ask(**said), recipe) == said


@pytest.mark.parametrize(
    ("spec", "field", "flag"),
    [
        ("instance_type: large", "scale", "--scale"),
        ("scale: 1", "instance_type", "--instance-type"),
    ],
)
def test_field_that_is_nowhere_given_is_asked_for(
    spec: str,
    field: str,
    flag: str,
    read: Callable[[str], Recipe],
    ask: Callable[..., SplitRequest],
) -> None:
    with pytest.raises(InputError, match=f": no '{field}' below 'spec'$") as raised:
        choose_changes(ask(), read(f"spec:\n  {spec}\n"))
    assert (raised.value.field, raised.value.hint) == (f"spec.{field}", f"or give {flag}")


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
    assert choose_base(ask(base="s3://own/place/"), recipe, top) == "s3://own/place"


def test_archives_on_saturn_cloud_go_to_the_name_that_is_given(
    recipe: Recipe, read: Callable[[str], Recipe], ask: Callable[..., SplitRequest]
) -> None:
    top = "sfs://org/me/x/y"
    nameless = read(RECIPE.replace("  name: sweep\n", ""))
    for each in (recipe, nameless):
        assert choose_base(ask(name="mine"), each, top) == "sfs://org/me/mine"
    with pytest.raises(InputError, match=": no 'name' below 'spec' to call the") as raised:
        choose_base(ask(), nameless, top)
    assert raised.value.field == "spec.name"
    assert raised.value.hint == "give --name, or --file-syncs-base-dir-url"


@pytest.mark.parametrize(
    ("said", "places"),
    [
        ({}, [3, 0, 1, 2]),
        ({"skip_failures": True}, [3, 1, 2]),
        ({"skip_completed": True}, [3, 0]),
        ({"skip_completed": True, "skip_failures": True}, [3]),
        ({"skip_failures": True, "max_runs": 2}, [3, 1]),
        ({"max_runs": 1}, [3]),
    ],
)
def test_runs_that_are_not_skipped_are_chosen(
    said: dict[str, object], places: list[int], ask: Callable[..., SplitRequest]
) -> None:
    assert choose_runs(ask(**said), RUNS, SORTED) == [RUNS[place] for place in places]


def test_runs_keep_their_order_where_nothing_is_skipped(ask: Callable[..., SplitRequest]) -> None:
    assert choose_runs(ask(), RUNS, None) == RUNS
    assert choose_runs(ask(max_runs=3), RUNS, None) == RUNS[:3]
