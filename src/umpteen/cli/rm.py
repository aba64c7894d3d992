"""`umpteen rm`: remove a job and all its outputs."""

from __future__ import annotations

import os
import sys

import click

from umpteen.cli.options import job_argument
from umpteen.errors import EXIT_SOME_FAILED, EXIT_SUCCEEDED, SettingsError
from umpteen.model.command import write_verb
from umpteen.report.printing import say
from umpteen.report.text import render_number, render_size, shorten_path
from umpteen.verbs.remove import Removal, plan_removal, remove

__all__ = ["rm_command"]


@click.command(
    "rm",
    short_help="Remove a job and all its outputs.",
    epilog="""\b
Examples:
  umpteen rm sweep
  umpteen rm ./umpteen-results/sweep --yes""",
)
@job_argument
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def rm_command(name: str, *, yes: bool) -> int:
    """Remove the job NAME with everything that umpteen wrote for it, after asking.

    Only what lies in the job's own folder is removed, no link is followed, and files that
    umpteen did not write are left.
    """
    removal = plan_removal(name)
    if not yes and not _ask(removal, name):
        return EXIT_SOME_FAILED
    removed = remove(removal)
    address = removal.history.store.address
    say(f"{removal.name}: removed, {render_number(removed.tasks, 'task')} had outputs", err=True)
    if removal.outside:
        has = "has" if removal.outside == 1 else "have"
        outside = f"{render_number(removal.outside, 'task')} {has} outputs elsewhere"
        say(f"  left      {outside}", err=True)
    if removed.left:
        files = f"{render_number(removed.left, 'file')} that umpteen did not write"
        say(f"  left      {files}", err=True)
    if os.path.isdir(address) or not removed.is_empty:
        what = "the link" if os.path.islink(address) else "it is not empty:"
        say(f"  left      {what} {shorten_path(address)}", err=True)
    return EXIT_SUCCEEDED


def _ask(removal: Removal, job: str) -> bool:
    """Raises SettingsError where nobody can answer."""
    if not sys.stdin.isatty():
        again = write_verb("rm", job, flags="--yes")
        raise SettingsError("rm asks before it removes, and there is no terminal", again)
    tasks, size_bytes = removal.measure()
    size, where = render_size(size_bytes), shorten_path(removal.history.store.address)
    what = f"{render_number(tasks, 'task')} with outputs, {size} in {where}"
    return click.confirm(f"Remove {removal.name}: {what}?", err=True)
