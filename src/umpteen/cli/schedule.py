"""`umpteen schedule`: puts a program, its arguments and what it needs of Slurm into a bundle."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import click

from umpteen.bundles.apps import ask_arguments, find_known
from umpteen.bundles.bundle import Argument, BundleJob
from umpteen.bundles.folder import Added, BundleFolder
from umpteen.cli.machine_options import complete_bundle, machine_options, pick_machine_fields
from umpteen.config.reading import choose_machine, read_config
from umpteen.errors import EXIT_SUCCEEDED, SettingsError, find_nearest, say_nearest
from umpteen.job.slurm_options import (
    find_option,
    list_options,
    parse_script_options,
    takes_value,
)
from umpteen.job.spec import check_job_name
from umpteen.report.printing import say

__all__ = ["schedule_command"]

_SLURM = ("time", "tasks", "cpus_per_task", "gres", "mem", "array")


class ScheduleCommand(click.Command):
    """A verb whose flags may stand among those of the program that it schedules.

    A flag is ours only by its whole name; all others are the program's, as is all behind `--`. Of
    sbatch's those are the program's that stand behind it, and that it knows.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Gives click our own flags, and the program with its words behind `--`."""
        if ctx.resilient_parsing:  # to complete words
            return super().parse_args(ctx, args)
        split = _Words(self, args)
        left = super().parse_args(ctx, [*split.own, "--", *split.before, *split.behind])
        ctx.params.update(options=split.options, is_command=not split.before)
        return left


class _SlurmFlag(NamedTuple):
    """An option of sbatch on the command line."""

    word: str  # as `--output=x`, for the program
    name: str
    value: str | bool
    is_sure: bool  # whether it cannot be the program's, as it stands before it


class _Words:
    """A command line, taken apart."""

    def __init__(self, command: click.Command, args: Sequence[str]) -> None:
        end = args.index("--") if "--" in args else len(args)
        self._flags = {
            name: parameter
            for parameter in command.params
            if isinstance(parameter, click.Option)
            for name in parameter.opts
        }
        self._left = list(reversed(args[:end]))
        # Our flags, each in one word; options of sbatch; the program and its words, before and
        # behind `--`.
        self.own: list[str] = []
        self.options: list[_SlurmFlag] = []
        self.before: list[str] = []
        self.behind = args[end + 1 :]
        while self._left:
            self._take(self._left.pop())

    def _take(self, word: str) -> None:
        name, equals, value = word.partition("=")
        option = find_option(name[2:]) if name.startswith("--") else None
        if name in ("-h", "--help"):
            self.own.append(word)
        elif flag := self._flags.get(name):
            self.own += self._take_flag(flag, word)
        elif option is None:
            self._take_program(word)
        elif equals or not takes_value(option):
            self._take_option(word, option, value if equals else True)
        else:
            value = self._next(name)
            self._take_option(f"{name}={value}", option, value)

    def _take_flag(self, flag: click.Option, word: str) -> Iterator[str]:
        if flag.is_flag or "=" in word:
            yield word
            return
        yield f"{word}={self._next(word)}"
        while flag.multiple and self._left and not self._left[-1].startswith("-"):
            yield f"{word}={self._left.pop()}"

    def _take_option(self, word: str, name: str, value: str | bool) -> None:
        self.options.append(_SlurmFlag(word, name, value, is_sure=not self.before))

    def _take_program(self, word: str) -> None:
        if not self.before and word.startswith("-"):
            flag = word.partition("=")[0]
            names = {name.lstrip("-") for name in self._flags} | list_options()
            near = [f"--{name}" for name in find_nearest(flag.lstrip("-"), sorted(names))]
            hint = "flags of the program stand behind it"
            raise SettingsError(f"there is no flag {flag}", say_nearest(near) if near else hint)
        self.before.append(word)

    def _next(self, name: str) -> str:
        if not self._left:
            raise SettingsError(f"{name} needs a value", "umpteen schedule --help")
        return self._left.pop()


@click.command(
    "schedule",
    cls=ScheduleCommand,
    short_help="Put a program, and what it needs of Slurm, into a bundle.",
    options_metavar="[OPTIONS]",
    epilog="""\b
Examples:
  umpteen schedule my-app --lr=0.1 --time=1:00:00 --mem=16G
  umpteen schedule my-app --name sweep --append --dependencies prep --time 2h
  umpteen schedule --name sweep --append --partition gpu -- python train.py --lr 0.1""",
)
@click.argument("words", nargs=-1, metavar="PROGRAM [ARGUMENT]...")
@click.option(
    "--name",
    "--bundle",
    shell_complete=complete_bundle,
    help="The bundle's name; else the program's.",
)
@click.option("--job-name", "--job_name", help="The job's in the bundle; else the program's.")
@click.option("--append", is_flag=True, help="Add it to the newest bundle of that name.")
@click.option(
    "--dependencies", multiple=True, metavar="JOB...", help="Run after these, as [KIND:]JOB."
)
@click.option(
    "--pre-commands",
    "--pre-command",
    "--pre_commands",
    multiple=True,
    metavar="LINE...",
    help="Lines of shell that run before it.",
)
@click.option("--time", help="Its limit; any other option of sbatch goes by its long name, too.")
@click.option("--tasks", "--ntasks", help="How many tasks of Slurm.")
@click.option("--cpus-per-task", "--cpus_per_task", help="Cores of each.")
@click.option("--gres", help="Such as gpu:1.")
@click.option("--mem", help="Memory: 16G.")
@click.option("--array", help="Its indices: 0-9%2.")
@click.option("--submit", is_flag=True, help="Submit the bundle, too.")
@machine_options
@click.option("--json", "as_json", is_flag=True, help="As a JSON object.")
def schedule_command(
    words: tuple[str, ...],
    *,
    name: str | None,
    job_name: str | None,
    append: bool,
    dependencies: tuple[str, ...],
    pre_commands: tuple[str, ...],
    submit: bool,
    machine: str | None,
    as_json: bool,
    options: list[_SlurmFlag],
    is_command: bool,
    **flags: Any,
) -> int:
    """Put a job into a bundle: PROGRAM with its arguments, and what it needs of Slurm.

    PROGRAM-cli has to be on PATH: it is asked what PROGRAM would be given by the arguments. They
    may stand before and behind flags of this verb, which count by their whole names alone; those
    behind -- are the program's in any case, and options of sbatch behind PROGRAM where it knows
    them. Any other command stands behind -- alone.

    Exit code: 0, 1 if PROGRAM-cli refuses, 2 for wrong use, 3 if the bundle cannot be written.
    """
    if not "".join(words).strip():
        raise SettingsError("nothing to schedule", "umpteen schedule --help")
    config = read_config()
    chosen = choose_machine(config, machine, pick_machine_fields(flags))
    program = os.path.basename(_find_program(words) if is_command else words[0])
    own_name = check_job_name(job_name or program)
    arguments, options = ({}, options) if is_command else _ask_program(words, options)
    given = {key: flags[key] for key in _SLURM if flags[key] is not None}
    given |= {flag.name: flag.value for flag in options}
    job = BundleJob(
        name=own_name,
        script=_write_command(words) if is_command else words[0],
        arguments=arguments,
        dependencies=dependencies,
        pre_commands=pre_commands,
        slurm=parse_script_options(given),
    )
    folder = BundleFolder(config)
    bundle_name = name or program
    if append:
        added = folder.append(bundle_name, job)
    else:
        added = Added(folder.create(bundle_name, job), job.name, is_new=True)
    if append and added.is_new:
        say(f"there was no bundle {bundle_name!r}: made it", err=True)
    if not (submit and as_json):  # one object, which is the submission's
        _show(added, as_json=as_json)
    if not submit:
        return EXIT_SUCCEEDED
    from umpteen.cli.submit import submit_and_show  # which needs all that submits

    return submit_and_show(added.bundle, chosen, as_json=as_json)


def _ask_program(
    words: Sequence[str], options: list[_SlurmFlag]
) -> tuple[Mapping[str, Argument], list[_SlurmFlag]]:
    """What the program would be given, and which options are not its own."""
    unsure = [flag.word for flag in options if not flag.is_sure]
    known = find_known(words[0], words[1:], unsure)
    arguments = ask_arguments(words[0], [*words[1:], *known])
    return arguments, [flag for flag in options if flag.is_sure or flag.word not in known]


def _find_program(words: Sequence[str]) -> str:
    """What a command begins with."""
    return " ".join(words).split()[0]


def _write_command(words: Sequence[str]) -> str:
    """As shell; a word alone is shell already, as with `umpteen run`."""
    return words[0] if len(words) == 1 else shlex.join(words)


def _show(added: Added, *, as_json: bool) -> None:
    bundle = added.bundle
    if as_json:
        told = {"bundle": bundle.name, "timestamp": bundle.timestamp, "job": added.job}
        click.echo(json.dumps({**told, "jobs": list(bundle.jobs), "path": bundle.path}))
        return
    beside = ", ".join(job for job in bundle.jobs if job != added.job)
    others = f", with {beside}" if beside else ""
    say(f"{added.job} is in the bundle {bundle.name}{others}: {bundle.path}")
