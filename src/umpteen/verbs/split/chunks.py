"""The folder of a split: chunks and recipe, made apart, then put in place of older ones."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence

from umpteen.errors import InputError
from umpteen.formats.saturn_batch import Run, encode_chunk

__all__ = [
    "RECIPE",
    "check_complete",
    "check_folder",
    "list_instead",
    "put_in_place",
    "temporary_folder",
    "write_chunks",
    "write_recipe",
]

RECIPE = "recipe.yaml"
_CHUNK = re.compile(r"\d+\.json")
_TEMPORARY = ".umpteen-split-"


def check_folder(folder: str, batch: str) -> None:
    """Raises InputError where a chunk would replace the batch file."""
    above, name = os.path.split(os.path.realpath(batch))
    if _CHUNK.fullmatch(name) and above == os.path.realpath(folder):
        raise InputError(
            f"would be replaced by a chunk in {folder}",
            "choose another folder with --local-commands-directory",
            file=batch,
        )


@contextlib.contextmanager
def temporary_folder(folder: str) -> Iterator[str]:
    """A temporary folder in this one, removed at the end; those that killed processes left are
    removed first.
    """
    for name in os.listdir(folder):
        if name.startswith(_TEMPORARY):
            shutil.rmtree(f"{folder}/{name}", ignore_errors=True)
    temporary = tempfile.mkdtemp(prefix=_TEMPORARY, dir=folder)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_chunks(folder: str, runs: Sequence[Run], size: int, top: str, nprocs: int) -> int:
    """Put chunks of so many runs into an empty folder; how many there are."""
    own = os.urandom(8).hex()  # a chunk is another one, however equal it is to one before
    for number, start in enumerate(range(0, len(runs), size)):
        with open(f"{folder}/{number}.json", "xb") as file:
            file.write(encode_chunk(runs[start : start + size], top, nprocs, own))
    return len(os.listdir(folder))


def write_recipe(folder: str, content: str) -> None:
    """Put the recipe beside new chunks."""
    with open(f"{folder}/{RECIPE}", "x", encoding="utf-8") as file:
        file.write(content)


def list_instead(folder: str, made: str) -> dict[str, str | None]:
    """What changes in the folder when `made` is put in place: by name the new file, or None where
    there will be none.
    """
    old = dict.fromkeys([os.path.basename(made), *_list_chunks(folder)])
    return {**old, **{name: f"{made}/{name}" for name in os.listdir(made)}}


def put_in_place(folder: str, made: str) -> None:
    """Put new chunks and the recipe in place of those that are there.

    The old chunks go first and the recipe follows: whoever is killed in between leaves too few
    chunks, never some of two splits, nor new ones with the old recipe.
    """
    for name in _list_chunks(folder):
        os.unlink(f"{folder}/{name}")
    os.replace(f"{made}/{RECIPE}", f"{folder}/{RECIPE}")
    for name in os.listdir(made):
        os.rename(f"{made}/{name}", f"{folder}/{name}")


def _list_chunks(folder: str) -> list[str]:
    return [name for name in os.listdir(folder) if _CHUNK.fullmatch(name)]


def check_complete(folder: str, left_out: Iterable[str]) -> None:
    """Raises InputError where rules in the folder leave out what the machines need.

    left_out: the paths in it that they leave out.
    """
    if any(map(_CHUNK.fullmatch, left_out)):
        hint = "remove it, or choose another folder with --local-commands-directory"
        raise InputError(
            "a .gitignore or .umpteenignore there leaves out chunks", hint, file=folder
        )
