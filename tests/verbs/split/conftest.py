"""A recipe and the runs of a batch, as a split takes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from umpteen.formats.files import open_document
from umpteen.formats.saturn_batch import Run
from umpteen.formats.saturn_recipe import Recipe, read_recipe

RECIPE = (
    "type: job\nspec:\n  name: sweep\n  owner: me\n  instance_type: large\n  start_script: ''\n"
)
RUNS = [Run(cmd=f"echo {n}") for n in range(4)]


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], Recipe]:
    """Reads a recipe of that text."""

    def read(text: str) -> Recipe:
        file = tmp_path / "recipe.yaml"
        file.write_text(text)
        return read_recipe(open_document(str(file), "spec", ""))

    return read


@pytest.fixture
def recipe(read: Callable[[str], Recipe]) -> Recipe:
    """One that says little."""
    return read(RECIPE)
