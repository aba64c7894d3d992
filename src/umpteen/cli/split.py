"""`umpteen split`: a batch file in chunks, and the recipe of the job that runs them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import click

from umpteen.cli.options import WholeNumber, complete_file
from umpteen.errors import EXIT_SUCCEEDED, SettingsError
from umpteen.formats.syncs import parse_sync
from umpteen.report.printing import say
from umpteen.report.text import render_number, render_size, shorten_path
from umpteen.verbs.split import Sent, Split, SplitRequest, split

__all__ = ["split_command"]

_FOLDER = "/tmp/commands"
_PROGRESS_S = 5.0
_MOST_NAMED = 5


@click.command(
    "split",
    short_help="Split a batch file into chunks, one a machine.",
    epilog="""\b
Examples:
  umpteen split recipe.yaml batch.yaml ~/commands --sync ~/workspace/code
  umpteen split recipe.yaml batch.json ~/commands --skip-completed --max-jobs 1000""",
)
@click.argument("recipe", shell_complete=complete_file)
@click.argument("batch", shell_complete=complete_file)
@click.argument("local_dir", required=False, shell_complete=complete_file)
@click.option(
    "--local-commands-directory", metavar="DIR", help=f"The same as LOCAL_DIR ({_FOLDER})."
)
@click.option(
    "--remote-commands-directory", metavar="DIR", help="Where chunks are on machines (same path)."
)
@click.option("--batch-size", type=WholeNumber(min=1), help="Runs of a chunk (3 * nprocs).")
@click.option("--nprocs", type=WholeNumber(min=1), help="Runs at once, where BATCH does not say.")
@click.option("--sync", multiple=True, metavar="SRC[:DEST]", help="A folder for the machines.")
@click.option(
    "--file-syncs-base-dir-url", metavar="URL", help="Where archives of folders go and come from."
)
@click.option("--skip-completed", is_flag=True, help="Leave out what succeeded.")
@click.option("--skip-failures", is_flag=True, help="Leave out what failed.")
@click.option(
    "--max-jobs", type=int, default=-1, help="At most so many runs, the first of those left."
)
@click.option("--remote-output-path", metavar="URL", help="In place of the batch's.")
@click.option("--instance-type", metavar="TYPE", help="In place of the recipe's.")
@click.option(
    "--scale", type=WholeNumber(min=0), help="How many machines, in place of the recipe's."
)
@click.option("--name", help="In place of the recipe's.")
@click.option(
    "--command", default="sc batch", show_default=True, help="What runs a chunk on the machines."
)
@click.option("--json", "as_json", is_flag=True, help="One object on stdout.")
def split_command(recipe: str, batch: str, local_dir: str | None, **options: Any) -> int:
    """Split the runs of BATCH into files 0.json, 1.json, … in LOCAL_DIR, a machine's work each.

    recipe.yaml there is RECIPE with a command for each file, and a start script that fetches
    these files and what is synced. RECIPE itself and other files there stay as they are.
    """
    folder = _choose_folder(local_dir, options["local_commands_directory"])
    if not options["command"].strip():
        raise SettingsError("--command is empty", "write --command 'umpteen batch'")
    request = SplitRequest(
        recipe=recipe,
        batch=batch,
        folder=folder,
        remote_folder=options["remote_commands_directory"],
        batch_size=options["batch_size"],
        nprocs=options["nprocs"],
        syncs=[parse_sync(text) for text in options["sync"]],
        base=options["file_syncs_base_dir_url"],
        skip_completed=options["skip_completed"],
        skip_failures=options["skip_failures"],
        max_runs=max(0, options["max_jobs"]),
        top=options["remote_output_path"],
        instance_type=options["instance_type"],
        scale=options["scale"],
        name=options["name"],
        command=options["command"],
    )
    done = split(request, _Progress())
    if options["nprocs"] not in (None, done.nprocs):
        say(f"note: {batch} says nprocs {done.nprocs}, which counts", err=True)
    if options["as_json"]:
        import msgspec

        click.echo(msgspec.json.encode(_to_dict(done)).decode())
    else:
        _show(request, done)
    return EXIT_SUCCEEDED


def _choose_folder(argument: str | None, flag: str | None) -> str:
    if argument and flag:
        raise SettingsError(
            "LOCAL_DIR and --local-commands-directory are the same", "give one of them"
        )
    return os.path.expanduser(argument or flag or _FOLDER)


class _Progress:
    """Says on stderr every few seconds how far a folder is."""

    def __init__(self) -> None:
        self._next_s = time.monotonic() + _PROGRESS_S

    def __call__(self, source: str, files: int, size: int) -> None:
        now = time.monotonic()
        if now >= self._next_s:
            self._next_s = now + _PROGRESS_S
            text = f"{shorten_path(source)}: {files:,} files, {render_size(size)} so far"
            say(text, err=True)


def _show(request: SplitRequest, done: Split) -> None:
    if done.outcome:
        rows = (
            ("unfinished", done.outcome.unfinished, False),
            ("failed", done.outcome.failed, request.skip_failures),
            ("completed", done.outcome.completed, request.skip_completed),
        )
        say(", ".join(f"{len(r):,} {name}{' (skipped)' * skip}" for name, r, skip in rows))
    size = f"{done.batch_size:,}" + " (3 * nprocs)" * (request.batch_size is None)
    folder = shorten_path(done.folder)
    runs, chunks = render_number(done.runs, "run"), render_number(done.chunks, "chunk")
    say(f"{runs} in {chunks} of {size}, in {folder}")
    for sent in done.sent:
        say(_describe(sent))
        if sent.packed.left_out:
            say(f"    left out {_list_some(sent.packed.left_out)}, by ignore rules")
        for path, target in sent.packed.outward[:_MOST_NAMED]:
            text = f"note: {sent.source}/{path} is sent as a link to {target}, which must be there"
            say(text, err=True)
    say(f"  recipe     {shorten_path(done.recipe)}")


def _describe(sent: Sent) -> str:
    what = f"{render_number(sent.packed.files, 'file')}, {render_size(sent.packed.size_bytes)}"
    word = "sent      " if sent.is_new else "unchanged "
    return f"  {word} {shorten_path(sent.source)} ({what}) for {sent.dest}"


def _list_some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + f" and {more:,} more" * (more > 0)


def _to_dict(done: Split) -> dict[str, Any]:
    return {
        "recipe": done.recipe,
        "folder": done.folder,
        "nprocs": done.nprocs,
        "batch_size": done.batch_size,
        "runs": done.runs,
        "chunks": done.chunks,
        "counts": {name: len(runs) for name, runs in done.outcome._asdict().items()}
        if done.outcome
        else None,
        "syncs": [
            {
                "src": sent.source,
                "dest": sent.dest,
                "url": sent.url,
                "digest": sent.packed.digest,
                "files": sent.packed.files,
                "bytes": sent.packed.size_bytes,
                "sent": sent.is_new,
                "left_out": sent.packed.left_out,
                "links_out": [path for path, _ in sent.packed.outward],
            }
            for sent in done.sent
        ],
    }
