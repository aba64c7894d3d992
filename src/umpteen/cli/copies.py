"""Copies of what tasks left: by `results`, and by `run` and `collect` once a job has ended."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence

import click

from umpteen.errors import EXIT_SOME_FAILED, EXIT_SUCCEEDED
from umpteen.query.files import LeftOut, LeftOutKind
from umpteen.query.pull import Pulled
from umpteen.report.files import pulled_to_dict
from umpteen.report.printing import say
from umpteen.report.text import render_number, render_size, shorten_path
from umpteen.system.terminal import clean

__all__ = ["show_left_out", "show_pull"]

_SHOW_S = 1.0
_SHOWN = 3
_KINDS = {
    LeftOutKind.OUTPUTS: "of which nothing can be looked at",
    LeftOutKind.NAME: "with a name that leads out of DEST",
    LeftOutKind.LINK: "that lead out of a task's results",
    LeftOutKind.SPECIAL: "that cannot be copied",
    LeftOutKind.UNREADABLE: "that could not be read",
    LeftOutKind.GONE: "that went away meanwhile",
    LeftOutKind.IN_THE_WAY: "in whose place is something else (--force replaces files)",
}
_NEVER_COPIED = (LeftOutKind.LINK, LeftOutKind.SPECIAL)


def show_pull(
    pulls: Iterable[Pulled], dest: str, *, as_json: bool, quiet: bool = False, event: str = ""
) -> int:
    """Copy, and say what was copied and what was left out; the exit code.

    event: what the object of --json is, where it is one of several.
    """
    pulled, shown_s = Pulled(), time.monotonic()
    for pulled in pulls:
        if time.monotonic() - shown_s > _SHOW_S and not (as_json or quiet):
            shown_s = time.monotonic()
            size = render_size(pulled.size_bytes)
            sys.stderr.write(f"{render_number(pulled.files, 'file')}, {size} so far\n")
    if as_json:
        named = {"event": event} if event else {}
        click.echo(json.dumps({**named, **pulled_to_dict(pulled)}))
    elif not quiet:
        kept = f", {pulled.kept:,} of them were there" if pulled.kept else ""
        size = render_size(pulled.size_bytes)
        say(
            f"{render_number(pulled.files, 'file')}, {size} in {shorten_path(dest)}{kept}", err=True
        )
    if not as_json:
        show_left_out(pulled.left_out)
    is_lacking = any(each.kind not in _NEVER_COPIED for each in pulled.left_out)
    return EXIT_SOME_FAILED if is_lacking else EXIT_SUCCEEDED


def show_left_out(left_out: Sequence[LeftOut]) -> None:
    """A line for each kind, with the first few in full."""
    for kind, what in _KINDS.items():
        found = [each for each in left_out if each.kind == kind]
        if not found:
            continue
        shown = [clean(f"{each.path} {each.why}") for each in found[:_SHOWN]]
        more = f", and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
        say(f"  left out  {len(found):,} {what}: {', '.join(shown)}{more}", err=True)
