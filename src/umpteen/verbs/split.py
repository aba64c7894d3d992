"""Splits a batch file into chunks, and makes the recipe of the job that runs them.

Takes what was asked for, leaves chunks and a recipe in a folder, and archives where a start
script fetches them. Refuses before anything is written what can be refused then. Asks no
service.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from umpteen.errors import InputError, SettingsError
from umpteen.formats.reading import open_document
from umpteen.formats.saturn_batch import (
    BatchFile,
    Run,
    complete_runs,
    encode_chunk,
    is_of_a_job,
    read_batch,
)
from umpteen.formats.saturn_recipe import (
    WORKING_DIRECTORY,
    Download,
    Recipe,
    check_fetchable,
    join_script,
    read_recipe,
    rewrite_recipe,
)
from umpteen.formats.syncs import Sync
from umpteen.store.address import (
    check_job_address,
    is_remote,
    make_absolute,
    open_store,
    parse_address,
)
from umpteen.store.base import Store
from umpteen.store.layout import SPLIT
from umpteen.submission.archive import Packed, measure, pack
from umpteen.system.locks import local_lock
from umpteen.verbs.summarize_batch import read_exit_codes

__all__ = [
    "Sent",
    "SortedRuns",
    "Split",
    "SplitRequest",
    "open_batch",
    "sort_runs",
    "split",
]

RECIPE = "recipe.yaml"
_BATCHES_PER_SLOT = 3
_ARCHIVE = "data.tar.gz"
_ENDS_BYTES = 8
_CHUNK = re.compile(r"\d+\.json")
_TEMPORARY = ".umpteen-split-"
_RECIPE_HINT = "give a recipe: instance_type, scale and start_script below 'spec'"
_BATCH_HINT = "give a batch file: nprocs, remote_output_path and runs"

# Is called now and then with a folder, and its files and bytes so far.
Progress = Callable[[str, int, int], None]


class SplitRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a split was asked for; None: not said.

    recipe, batch: files. folder: where chunks and recipe go. remote_folder: where the chunks
    are on the machine. batch_size: runs of a chunk. base: the address below which archives go.
    max_runs: how many of those that are not skipped; 0 for all. command: what runs a chunk.
    """

    recipe: str
    batch: str
    folder: str
    remote_folder: str | None = None
    batch_size: int | None = None
    nprocs: int | None = None
    syncs: list[Sync] = []
    base: str | None = None
    skip_completed: bool = False
    skip_failures: bool = False
    max_runs: int = 0
    top: str | None = None
    instance_type: str | None = None
    scale: int | None = None
    name: str | None = None
    command: str = "sc batch"


class SortedRuns(NamedTuple):
    """Runs by what became of them, each in the order of the file."""

    unfinished: list[Run]
    failed: list[Run]
    completed: list[Run]


class Sent(NamedTuple):
    """A synced folder: is_new is false where the archive was there already."""

    source: str
    dest: str
    url: str
    packed: Packed
    is_new: bool


class Split(NamedTuple):
    """What a split made. outcome: None where nothing was to be skipped, so nothing was read."""

    recipe: str
    folder: str
    nprocs: int
    batch_size: int
    runs: int
    chunks: int
    outcome: SortedRuns | None
    sent: list[Sent]


def split(order: SplitRequest, on_progress: Progress) -> Split:
    """Do what was asked for.

    Raises InputError and SettingsError before anything is written, StoreError where archives
    cannot be sent: chunks and recipe are then the old ones.
    """
    recipe = read_recipe(open_document(order.recipe, "spec", _RECIPE_HINT))
    batch, top = open_batch(order.batch, order.top)
    _check_folder(order)
    nprocs = _choose_nprocs(order, batch)
    changes = _choose_changes(order, recipe)
    folder = make_absolute(order.folder)
    base = _choose_base(order, recipe, top)
    archives = [_place(sync, recipe, base) for sync in _list_syncs(order)]
    _check_archives(archives, base)
    measured = [_measure(archive, folder, base, on_progress) for archive in archives[:-1]]
    complete_runs(batch, top)
    outcome = _read_outcome(order, batch, top)
    runs = _choose_runs(order, batch, outcome)
    size = order.batch_size or _BATCHES_PER_SLOT * nprocs
    store = open_store(base)
    check_job_address(parse_address(top))
    os.makedirs(folder, exist_ok=True)
    lock = hashlib.blake2b(os.fsencode(os.path.realpath(folder)), digest_size=8).hexdigest()
    with (
        local_lock(f"split-{lock}"),
        contextlib.closing(store),
        store.patient(),
        _make_temporary(folder) as made,
    ):
        sent = [
            _send(store, archive, found, folder, base, on_progress)
            for archive, found in zip(archives[:-1], measured, strict=True)
        ]
        chunks = _write_chunks(made, runs, size, top, nprocs)
        commands = archives[-1]._replace(instead=_list_instead(folder, made))
        own = _measure(commands, folder, base, on_progress)
        _check_complete(folder, own, chunks)
        sent.append(_send(store, commands, own, folder, base, on_progress))
        changes["command"] = [
            f"{order.command} {shlex.quote(f'{commands.dest}/{number}.json')}"
            for number in range(chunks)
        ]
        changes["start_script"] = join_script(
            recipe.get_text("start_script"), [Download(each.url, each.dest) for each in sent]
        )
        with open(f"{made}/{RECIPE}", "x", encoding="utf-8") as file:
            file.write(rewrite_recipe(recipe, changes))
        _put_in_place(folder, made)
    path = os.path.join(folder, RECIPE)
    return Split(path, folder, nprocs, size, len(runs), chunks, outcome, sent)


# --- what was asked for ---------------------------------------------------------------------


def open_batch(file: str, top: str | None) -> tuple[BatchFile, str]:
    """A batch file, and where its results are; raises InputError."""
    batch = read_batch(open_document(file, "runs", _BATCH_HINT))
    if is_of_a_job(batch.document):
        raise InputError(
            "is a batch of a job that umpteen runs, which a chunk cannot stand for",
            "split the file that the job was made from",
            file=file,
            field="umpteen",
        )
    if not (top or batch.top):
        hint = "give it at the top of the file, or --remote-output-path"
        raise batch.build_error("has no 'remote_output_path'", "remote_output_path", hint=hint)
    return batch, top or batch.top


def _check_folder(order: SplitRequest) -> None:
    """Raises InputError where a chunk would replace the batch file."""
    above, name = os.path.split(os.path.realpath(order.batch))
    if _CHUNK.fullmatch(name) and above == os.path.realpath(order.folder):
        raise InputError(
            f"would be replaced by a chunk in {order.folder}",
            "choose another folder with --local-commands-directory",
            file=order.batch,
        )


def _choose_nprocs(order: SplitRequest, batch: BatchFile) -> int:
    nprocs = batch.nprocs or order.nprocs
    if nprocs is None:
        hint = "give it in the file, or --nprocs: how many runs at once on one machine"
        raise batch.build_error("has no 'nprocs'", "nprocs", hint=hint)
    return nprocs


def _choose_changes(order: SplitRequest, recipe: Recipe) -> dict[str, Any]:
    """What is given on the command line; raises InputError where a field is nowhere given."""
    given = {"name": order.name, "instance_type": order.instance_type, "scale": order.scale}
    for field in ("instance_type", "scale"):
        if given[field] is None and field not in recipe.spec:
            flag = f"--{field.replace('_', '-')}"
            raise recipe.build_error(f"no '{field}' below 'spec'", field, f"or give {flag}")
    return {field: value for field, value in given.items() if value is not None}


def _choose_base(order: SplitRequest, recipe: Recipe, top: str) -> str:
    """Where archives go: as said, else as on Saturn Cloud, else beside the results."""
    if order.base:
        return parse_address(order.base)
    address = parse_address(top)
    if not address.startswith("sfs://"):
        return f"{address}/{SPLIT}"
    name = order.name or recipe.get_text("name")
    owner = "/".join(address.split("/")[:4])
    if not name:
        raise recipe.build_error(
            "no 'name' below 'spec' to call the place of archives by",
            "name",
            "give --name, or --file-syncs-base-dir-url",
        )
    return f"{owner}/{name}"


def _read_outcome(order: SplitRequest, batch: BatchFile, top: str) -> SortedRuns | None:
    if not (order.skip_completed or order.skip_failures):
        return None
    return sort_runs(batch.runs, read_exit_codes(top, batch.runs))


def sort_runs(runs: Sequence[Run], codes: Sequence[int | None]) -> SortedRuns:
    """Runs by their exit codes, which they get, with the words of `sc` for them."""
    outcome = SortedRuns([], [], [])
    for run, code in zip(runs, codes, strict=True):
        run.status_code = code
        if code is None:
            run.status = None
            outcome.unfinished.append(run)
        else:
            run.status = "error" if code else "completed"
            (outcome.failed if code else outcome.completed).append(run)
    return outcome


def _choose_runs(order: SplitRequest, batch: BatchFile, outcome: SortedRuns | None) -> list[Run]:
    """Those that are not skipped; where some may be, first what has not come to an end."""
    runs = batch.runs
    if outcome:
        failed = [] if order.skip_failures else outcome.failed
        completed = [] if order.skip_completed else outcome.completed
        runs = [*outcome.unfinished, *failed, *completed]
    return runs[: order.max_runs] if order.max_runs > 0 else runs


# --- chunks ---------------------------------------------------------------------------------


@contextlib.contextmanager
def _make_temporary(folder: str) -> Iterator[str]:
    """A folder in it for what is not complete yet, gone afterwards; those of the killed go now."""
    for name in os.listdir(folder):
        if name.startswith(_TEMPORARY):
            shutil.rmtree(f"{folder}/{name}", ignore_errors=True)
    temporary = tempfile.mkdtemp(prefix=_TEMPORARY, dir=folder)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_chunks(folder: str, runs: Sequence[Run], size: int, top: str, nprocs: int) -> int:
    """Put chunks into an empty folder; how many there are."""
    own = os.urandom(8).hex()  # a chunk is another one, however equal it is to one before
    for number, start in enumerate(range(0, len(runs), size)):
        with open(f"{folder}/{number}.json", "xb") as file:
            file.write(encode_chunk(runs[start : start + size], top, nprocs, own))
    return len(os.listdir(folder))


def _list_instead(folder: str, made: str) -> dict[str, str | None]:
    """What the folder will hold once what was made is in place."""
    old = dict.fromkeys([os.path.basename(made), *_list_chunks(folder)])
    return {**old, **{name: f"{made}/{name}" for name in os.listdir(made)}}


def _put_in_place(folder: str, made: str) -> None:
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


def _check_complete(folder: str, packed: Packed, chunks: int) -> None:
    """Raises InputError where rules in the folder leave out what the machines need."""
    if packed.files < chunks:
        hint = "remove it, or choose another folder with --local-commands-directory"
        raise InputError(
            "a .gitignore or .umpteenignore there leaves out chunks", hint, file=folder
        )


# --- archives -------------------------------------------------------------------------------


class _Archive(NamedTuple):
    """A folder here, where it shall be on the machine, and the folder of its archive's key."""

    source: str
    dest: str
    key: str
    url: str
    instead: Mapping[str, str | None] = MappingProxyType({})  # as `measure` has it


def _list_syncs(order: SplitRequest) -> list[Sync]:
    """Those that were asked for, and the commands last."""
    return [*order.syncs, Sync(order.folder, order.remote_folder)]


def _place(sync: Sync, recipe: Recipe, base: str) -> _Archive:
    """By the rules of `sc`: what has no place of its own goes to the path it has here."""
    dest = os.path.normpath(sync.dest or sync.src)
    if not dest.startswith(("/", "~/")):
        above = recipe.get_text("working_directory") or WORKING_DIRECTORY
        dest = os.path.normpath(os.path.join(above, dest))
    key = f"{dest.removeprefix('~').strip('/')}/{_ARCHIVE}".lstrip("/")
    return _Archive(sync.src, dest, key, f"{base}/{key}")


def _check_archives(archives: Sequence[_Archive], base: str) -> None:
    """Raises SettingsError where they cannot be fetched, or replace one another."""
    check_fetchable(base)
    for first, second in itertools.combinations(archives, 2):
        if first.key == second.key:
            raise SettingsError(
                f"{first.source} and {second.source} would both be at {first.dest}",
                "give one of them another place: --sync SRC:DEST",
            )


def _list_excluded(archive: _Archive, folder: str, base: str) -> list[str]:
    """What is no part of a synced folder, although it may lie in it."""
    source = os.path.realpath(archive.source)
    own = [os.path.join(folder, RECIPE) if source == os.path.realpath(folder) else folder]
    return own if is_remote(base) else [*own, base]


def _measure(archive: _Archive, folder: str, base: str, on_progress: Progress) -> Packed:
    return measure(
        archive.source,
        exclude=_list_excluded(archive, folder, base),
        instead=archive.instead,
        keeps_links=True,  # `tar` unpacks them there
        on_progress=functools.partial(on_progress, archive.source),
    )


def _send(
    store: Store,
    archive: _Archive,
    packed: Packed,
    folder: str,
    base: str,
    on_progress: Progress,
) -> Sent:
    """Put an archive where it is fetched, unless it is there."""
    key, note_key = archive.key, f"{archive.key}.digest"
    ends, note = store.read_many([(key, -_ENDS_BYTES, -1), (note_key, 0, -1)])
    is_new = not ends or note != _write_note(packed, ends)
    if is_new:
        store.delete(note_key)  # so that one of us who is killed leaves no wrong one
        parts = pack(
            archive.source,
            packed.digest,
            exclude=_list_excluded(archive, folder, base),
            instead=archive.instead,
            keeps_links=True,
            on_progress=functools.partial(on_progress, archive.source),
        )
        written = bytearray()
        store.replace(key, _keep_end(parts, written))
        store.replace(note_key, _write_note(packed, bytes(written)))
    return Sent(archive.source, archive.dest, archive.url, packed, is_new)


def _write_note(packed: Packed, ends: bytes) -> bytes:
    """What is kept beside an archive: its digest, and how it ends, which no other one does.

    The last bytes of a gzip file are a checksum and the length of what is in it, so that one
    that another tool has put there since is told from ours by a read of them.
    """
    return f"{packed.digest} {ends.hex()}".encode()


def _keep_end(parts: Iterable[bytes], ends: bytearray) -> Iterator[bytes]:
    for part in parts:
        ends[:] = (bytes(ends) + part[-_ENDS_BYTES:])[-_ENDS_BYTES:]
        yield part
