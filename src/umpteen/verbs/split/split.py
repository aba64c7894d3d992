"""The steps of a split: read, decide, refuse, then send archives and put chunks in place.

What can be refused is refused before anything is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from umpteen.formats.files import open_document
from umpteen.formats.saturn_batch import Run, complete_runs
from umpteen.formats.saturn_recipe import (
    Download,
    Recipe,
    join_script,
    read_recipe,
    rewrite_recipe,
)
from umpteen.formats.syncs import Sync
from umpteen.store.address import check_job_address, make_absolute, open_store, parse_address
from umpteen.submission.archive import Packed
from umpteen.system.locks import local_lock
from umpteen.verbs.split.archives import (
    Archive,
    Archives,
    Progress,
    Sent,
    check_archives,
    place_archive,
)
from umpteen.verbs.split.chunks import (
    RECIPE,
    check_complete,
    check_folder,
    list_instead,
    put_in_place,
    temporary_folder,
    write_chunks,
    write_recipe,
)
from umpteen.verbs.split.request import (
    SplitRequest,
    choose_base,
    choose_changes,
    choose_nprocs,
    choose_runs,
)
from umpteen.verbs.summarize_batch import SortedRuns, open_batch, read_exit_codes, sort_runs

__all__ = ["Split", "split"]

_BATCHES_PER_SLOT = 3
_RECIPE_HINT = "give a recipe: instance_type, scale and start_script below 'spec'"


class Split(NamedTuple):
    """What a split made."""

    recipe: str
    folder: str
    nprocs: int
    batch_size: int
    runs: int
    chunks: int
    outcome: SortedRuns | None  # None where nothing was to be skipped, so nothing was read
    sent: list[Sent]


class _Decided(NamedTuple):
    """All that a split will do."""

    recipe: Recipe
    changes: dict[str, Any]  # fields of the recipe
    command: str  # what runs a chunk
    folder: str  # where chunks and recipe go
    top: str  # where the results of the runs are
    nprocs: int
    size: int  # runs of a chunk
    runs: list[Run]
    outcome: SortedRuns | None
    base: str  # where archives go
    synced: list[tuple[Archive, Packed]]
    commands: Archive  # of the folder of the chunks


def split(request: SplitRequest, on_progress: Progress) -> Split:
    """Do what was asked for.

    Raises InputError and SettingsError before anything is written, StoreError where archives
    cannot be sent: chunks and recipe are then the old ones.
    """
    decided = _decide(request, on_progress)
    chunks, sent = _make(decided, on_progress)
    return Split(
        os.path.join(decided.folder, RECIPE),
        decided.folder,
        decided.nprocs,
        decided.size,
        len(decided.runs),
        chunks,
        decided.outcome,
        sent,
    )


def _decide(request: SplitRequest, on_progress: Progress) -> _Decided:
    recipe = read_recipe(open_document(request.recipe, "spec", _RECIPE_HINT))
    batch, top = open_batch(request.batch, request.top)
    check_folder(request.folder, request.batch)
    nprocs = choose_nprocs(request, batch)
    changes = choose_changes(request, recipe)
    folder = make_absolute(request.folder)
    base = choose_base(request, recipe, top)
    syncs = [*request.syncs, Sync(request.folder, request.remote_folder)]
    *synced, commands = [place_archive(sync, recipe, base) for sync in syncs]
    check_archives([*synced, commands], base)
    measuring = Archives(folder, base, on_progress)
    measured = [(archive, measuring.measure(archive)) for archive in synced]
    complete_runs(batch, top)
    outcome = None
    if request.skip_completed or request.skip_failures:
        outcome = sort_runs(batch.runs, read_exit_codes(top, batch.runs))
    return _Decided(
        recipe=recipe, changes=changes, command=request.command, folder=folder, top=top,
        nprocs=nprocs, size=request.batch_size or _BATCHES_PER_SLOT * nprocs,
        runs=choose_runs(request, batch.runs, outcome), outcome=outcome, base=base,
        synced=measured, commands=commands,
    )  # fmt: skip


def _make(decided: _Decided, on_progress: Progress) -> tuple[int, list[Sent]]:
    """Send archives, and put chunks and recipe in place; how many chunks, and what was sent."""
    folder = decided.folder
    archives = Archives(folder, decided.base, on_progress)
    store = open_store(decided.base)
    check_job_address(parse_address(decided.top))
    os.makedirs(folder, exist_ok=True)
    with (
        local_lock(f"split-{_digest(folder)}"),
        contextlib.closing(store),
        store.patient(),
        temporary_folder(folder) as made,
    ):
        sent = [archives.send(store, archive, packed) for archive, packed in decided.synced]
        chunks = write_chunks(made, decided.runs, decided.size, decided.top, decided.nprocs)
        commands = decided.commands._replace(instead=list_instead(folder, made))
        packed = archives.measure(commands)
        check_complete(folder, packed.left_out)
        sent.append(archives.send(store, commands, packed))
        write_recipe(made, _complete_recipe(decided, chunks, sent))
        put_in_place(folder, made)
    return chunks, sent


def _digest(folder: str) -> str:
    return hashlib.blake2b(os.fsencode(os.path.realpath(folder)), digest_size=8).hexdigest()


def _complete_recipe(decided: _Decided, chunks: int, sent: Sequence[Sent]) -> str:
    """The recipe with a command for each chunk, and a start script that fetches the archives."""
    recipe, place = decided.recipe, decided.commands.dest
    commands = [
        f"{decided.command} {shlex.quote(f'{place}/{number}.json')}" for number in range(chunks)
    ]
    downloads = [Download(each.url, each.dest) for each in sent]
    script = join_script(recipe.get_text("start_script"), downloads)
    changes = {**decided.changes, "command": commands, "start_script": script}
    return rewrite_recipe(recipe, changes)
