"""What a split is asked for, and what follows from that: decided from recipe and batch alone."""

from __future__ import annotations

import msgspec

from umpteen.formats.saturn_batch import BatchFile, Run
from umpteen.formats.saturn_recipe import Recipe
from umpteen.formats.syncs import Sync
from umpteen.store.address import parse_address
from umpteen.store.layout import SPLIT
from umpteen.verbs.summarize_batch import SortedRuns

__all__ = ["SplitRequest", "choose_base", "choose_changes", "choose_nprocs", "choose_runs"]


class SplitRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a split was asked for; None: not said."""

    recipe: str  # a file
    batch: str  # a file
    folder: str  # where chunks and recipe go
    remote_folder: str | None = None  # where the chunks are on the machine
    batch_size: int | None = None  # runs of a chunk
    nprocs: int | None = None
    syncs: list[Sync] = []
    base: str | None = None  # the address below which archives go
    skip_completed: bool = False
    skip_failures: bool = False
    max_runs: int = 0  # how many of those that are not skipped; 0 for all
    top: str | None = None  # where the results of the runs are
    instance_type: str | None = None
    scale: int | None = None
    name: str | None = None
    command: str = "sc batch"  # what runs a chunk


def choose_nprocs(request: SplitRequest, batch: BatchFile) -> int:
    """How many runs at once on one machine: as the batch file says, else the flag. Raises
    InputError.
    """
    nprocs = batch.nprocs or request.nprocs
    if nprocs is None:
        hint = "give it in the file, or --nprocs: how many runs at once on one machine"
        raise batch.build_error("has no 'nprocs'", "nprocs", hint=hint)
    return nprocs


def choose_changes(request: SplitRequest, recipe: Recipe) -> dict[str, str | int]:
    """Fields of the recipe that are given; raises InputError where one is nowhere given."""
    given: dict[str, str | int | None] = {
        "name": request.name,
        "instance_type": request.instance_type,
        "scale": request.scale,
    }
    for field in ("instance_type", "scale"):
        if given[field] is None and field not in recipe.spec:
            flag = f"--{field.replace('_', '-')}"
            raise recipe.build_error(f"no '{field}' below 'spec'", field, f"or give {flag}")
    return {field: value for field, value in given.items() if value is not None}


def choose_base(request: SplitRequest, recipe: Recipe, top: str) -> str:
    """Where archives go: as said, else as on Saturn Cloud, else beside the results."""
    if request.base:
        return parse_address(request.base)
    address = parse_address(top)
    if not address.startswith("sfs://"):
        return f"{address}/{SPLIT}"
    name = request.name or recipe.get_text("name")
    owner = "/".join(address.split("/")[:4])
    if not name:
        raise recipe.build_error(
            "no 'name' below 'spec' to call the place of archives by",
            "name",
            "give --name, or --file-syncs-base-dir-url",
        )
    return f"{owner}/{name}"


def choose_runs(request: SplitRequest, runs: list[Run], found: SortedRuns | None) -> list[Run]:
    """The runs that are not skipped; where some may be skipped, the unfinished ones come first."""
    if found:
        failed = [] if request.skip_failures else found.failed
        completed = [] if request.skip_completed else found.completed
        runs = [*found.unfinished, *failed, *completed]
    return runs[: request.max_runs] if request.max_runs > 0 else runs
