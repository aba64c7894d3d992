"""What is still to be submitted, and what was: two files beside the scripts. Pure.

`rest.json` is written once, by who submits. `submitted.json` is the submitter's alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from umpteen.model.forms import get, list_of, load_json, place, table_of, text, token, whole

__all__ = [
    "SUBMITTER",
    "PlannedArray",
    "Rest",
    "encode_progress",
    "encode_rest",
    "find_mark",
    "find_own_name",
    "name_submitter",
    "parse_progress",
    "parse_rest",
]

SUBMITTER = "submitter"
_OWN_NAME = re.compile(r"(?:^|[ ])([^ ]+-[0-9a-f]{12}-[0-9]+)$")


def name_submitter(mark: str) -> str:
    """Slurm's name of the job that submits the rest of the submission with that mark."""
    return f"umpteen-{mark}-{SUBMITTER}"


def find_own_name(name: str, comment: str) -> str:
    """That by which a job is known to be ours: Slurm's name, or what its comment ends with.

    It is in the comment where the user says what Slurm is to call a job.
    """
    found = _OWN_NAME.search(comment)
    return found[1] if found else name


def find_mark(name: str) -> str:
    """The mark in the name of an array: NAME-MARK-NUMBER."""
    return name.rpartition("-")[0].rpartition("-")[2]


class PlannedArray(NamedTuple):
    """An array of which no element was submitted when this was written."""

    number: int  # its script is NUMBER.sh
    size: int  # elements
    newest: int  # the highest number of its batches, by which it is cancelled
    name: str  # by which all its parts are known to be ours: NAME-MARK-NUMBER
    options: dict[str, str]  # of sbatch, but the elements
    after: list[str]  # arrays or elements of some: NAME-MARK-0, NAME-MARK-0_3
    after_names: list[str]  # what Slurm calls these arrays

    @property
    def slurm_name(self) -> str:
        """What Slurm calls it."""
        return self.options["job-name"]


class Rest(NamedTuple):
    """All that there is to submit, in this order."""

    mark: str  # of the submission
    most: int  # elements that are submitted at once
    round_s: int  # for how long one submitter is at it, before another goes on
    own: dict[str, str]  # sbatch's options for the submitter itself
    arrays: list[PlannedArray]

    @property
    def name(self) -> str:
        """Slurm's name of the submitter."""
        return name_submitter(self.mark)


def encode_rest(rest: Rest) -> bytes:
    """The file."""
    arrays = [array._asdict() for array in rest.arrays]
    return json.dumps({**rest._asdict(), "arrays": arrays}).encode()


def parse_rest(content: bytes) -> Rest:
    """What `encode_rest` wrote. Raises FormError."""
    found = table_of(load_json(content))
    return Rest(
        get(found, "mark", token),
        get(found, "most", whole, 1),
        get(found, "round_s", whole),
        _texts(get(found, "own", table_of)),
        list_of(_parse_array, found.get("arrays")),
    )


def _parse_array(value: Any) -> PlannedArray:
    found = table_of(value)
    return PlannedArray(
        get(found, "number", whole),
        get(found, "size", whole, 1),
        get(found, "newest", whole),
        get(found, "name", text),
        _texts(get(found, "options", table_of)),
        list_of(text, found.get("after")),
        list_of(text, found.get("after_names")),
    )


def _texts(found: Mapping[str, Any]) -> dict[str, str]:
    return {text(key): text(value) for key, value in found.items()}


def encode_progress(done: Mapping[int, int]) -> bytes:
    """By array: how many of its elements were submitted."""
    return json.dumps({str(number): end for number, end in done.items()}).encode()


def parse_progress(content: bytes) -> dict[int, int]:
    """What `encode_progress` wrote. Raises FormError."""
    found = table_of(load_json(content))
    return {place(number): whole(end) for number, end in found.items()}
