"""Which folders to sync: `--sync SRC[:DEST]` and the entries of `file_syncs`.

Takes texts and what stands in a file, gives `Sync`. Looks at no disk.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from umpteen.errors import InputError, nearest_hint
from umpteen.units import show_value

__all__ = ["Sync", "parse_sync", "parse_syncs"]

_FIELD = "file_syncs"
_KEYS = ("src", "dest")
_COLON = re.compile(":(?!//)")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://")
_HINT = "write --sync SRC or --sync SRC:DEST; names with a colon go into file_syncs of a job file"


class Sync(NamedTuple):
    """A folder, and where it shall be on the machine; None: in a folder of umpteen's own."""

    src: str
    dest: str | None


def parse_sync(text: str) -> Sync:
    """What `--sync` was given; raises InputError."""
    src, *rest = _COLON.split(text)
    if len(rest) > 1:
        raise InputError(f"{text!r} has more than one colon", _HINT, field="sync")
    return _build_sync(src, rest[0] if rest else None, "sync")


def parse_syncs(given: Any) -> list[Sync]:
    """The entries of `file_syncs`, each `{src, dest}`; raises InputError."""
    if not isinstance(given, list):
        raise _wrong(f"'{_FIELD}' must be a list, not {show_value(given)}")
    return [_parse_entry(entry) for entry in given]


def _parse_entry(given: Any) -> Sync:
    if not isinstance(given, Mapping):
        raise _wrong(f"an entry of '{_FIELD}' must be a mapping, not {show_value(given)}")
    for key in given:
        if key not in _KEYS:
            hint = nearest_hint(str(key), _KEYS)
            raise InputError(f"unknown key {str(key)!r} in '{_FIELD}'", hint, field=_FIELD)
    for key in _KEYS:
        if not isinstance(given.get(key, ""), str) and given[key] is not None:
            raise _wrong(f"{key!r} in '{_FIELD}' must be a path, not {show_value(given[key])}")
    return _build_sync(given.get("src") or "", given.get("dest"), _FIELD)


def _build_sync(src: str, dest: str | None, field: str) -> Sync:
    if not src:
        raise InputError("the folder to sync is missing", _HINT, field=field)
    for path in (src, dest or ""):
        if _URL.match(path):
            raise InputError(f"{path} is no folder of a machine", "give a path", field=field)
        if "\0" in path:
            raise InputError("a path to sync has a NUL character in it", field=field)
    return Sync(os.path.expanduser(src), dest or None)


def _wrong(message: str) -> InputError:
    return InputError(message, "write file_syncs: [{src: ./code}]", field=_FIELD)
