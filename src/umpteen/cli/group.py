"""All verbs by name, and the only place that catches every error, to show it."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import shlex
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from umpteen._version import __version__
from umpteen.errors import (
    EXIT_INTERRUPTED,
    EXIT_WRONG_USE,
    BackendError,
    ErrorCode,
    OutputError,
    ReaderLeftError,
    SettingsError,
    UmpteenError,
    find_nearest,
    nearest_hint,
    say_nearest,
)
from umpteen.executors import engine_logs
from umpteen.report.printing import guard_stdout
from umpteen.system.streams import never_mind_stderr
from umpteen.system.terminal import clean

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = ["VERBS", "VerbGroup", "program", "run_program"]

# verb: (its group in --help, what it does)
VERBS = {
    "run": ("jobs", "Run a file of commands, or one command with values."),
    "collect": ("jobs", "Watch a job that runs already, to its end."),
    "status": ("jobs", "Show how a job stands."),
    "ls": ("jobs", "List the jobs of this user."),
    "logs": ("jobs", "Print what a task wrote to stdout or stderr."),
    "results": ("jobs", "List the files that tasks left as results."),
    "why": ("jobs", "Say why a task has failed, or has not run."),
    "retry": ("jobs", "Run again what did not succeed."),
    "cancel": ("jobs", "End a job, or some tasks of it."),
    "export": ("jobs", "Write a row a task: parameters, outcome, metrics."),
    "rm": ("jobs", "Remove a job and all its outputs."),
    "split": ("batches", "Split a batch file into chunks, one a machine."),
    "summarize-batch": ("batches", "Show what became of the runs of a batch file."),
    "batch": ("batches", "Run one batch file on this machine."),
    "schedule": ("bundles", "Put a program, and what it needs of Slurm, into a bundle."),
    "submit": ("bundles", "Submit the jobs of a bundle to Slurm."),
    "initialize": ("bundles", "Make a bundle with no jobs yet."),
    "config": ("machines", "Describe the machines that work goes to."),
    "hosts": ("machines", "Show hosts behind ssh, and remove what old jobs left there."),
    "completion": ("shell", "Print what makes a shell complete verbs, flags and names."),
}
# What other tools call them.
_MEANT = {
    "configure": "umpteen config describes machines",
    "delete": "umpteen rm removes a job",
    "help": "umpteen --help",
    "kill": "umpteen cancel ends a job",
    "list": "umpteen ls lists jobs",
    "milex-configuration": "umpteen config describes machines",
    "milex-initialize": "umpteen initialize makes a bundle",
    "milex-schedule": "umpteen schedule puts a program into a bundle",
    "milex-submit": "umpteen submit submits a bundle",
    "ps": "umpteen ls lists jobs",
    "remove": "umpteen rm removes a job",
    "rerun": "umpteen retry runs again what did not succeed",
    "resume": "umpteen collect goes on with a job",
    "show": "umpteen status shows how a job stands",
    "start": "umpteen run starts a job",
    "stop": "umpteen cancel ends a job",
    "watch": "umpteen collect watches a job",
}
_WATCHES = "umpteen run watches to the end; umpteen collect watches what was detached"
_MEANT_FLAGS = {"--wait": _WATCHES, "--watch": _WATCHES}


class VerbGroup(click.Group):
    """Loads a verb's module when the verb is called; --help lists verbs without loading any."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The verbs in the order in which --help shows them."""
        return list(VERBS)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002
        cmd_name: str,
    ) -> click.Command | None:
        """The verb, loaded; None where there is none of that name."""
        if cmd_name not in VERBS:
            return None
        name = cmd_name.replace("-", "_")
        module = importlib.import_module(f"umpteen.cli.{name}")
        command: click.Command = getattr(module, f"{name}_command")
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The verbs that begin like that, none loaded, and the flags of `umpteen` itself."""
        from click.shell_completion import CompletionItem

        found = [CompletionItem(v, help=text) for v, (_, text) in VERBS.items()]
        found = [item for item in found if item.value.startswith(incomplete)]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Answers an unknown verb with the nearest ones."""
        if ctx.resilient_parsing:  # to complete words
            return super().resolve_command(ctx, args)
        if args[0] not in VERBS and not args[0].startswith("-"):
            hint = _MEANT.get(args[0]) or nearest_hint(args[0], VERBS)
            raise SettingsError(f"there is no verb {args[0]!r}", hint)
        return super().resolve_command(ctx, args)

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002
        formatter: click.HelpFormatter,
    ) -> None:
        """The verbs under the headings of their groups."""
        for group in dict.fromkeys(group for group, _ in VERBS.values()):
            with formatter.section(group):
                formatter.write_dl([(v, text) for v, (g, text) in VERBS.items() if g == group])


@click.group(
    cls=VerbGroup,
    no_args_is_help=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  umpteen run tasks.yaml
  umpteen run 'prog --lr {lr}' lr=0.1,0.01""",
)
@click.version_option(__version__, message="umpteen %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def program(ctx: click.Context, /, **_: bool) -> None:
    """Run umpteen shell commands, keep every output, skip what is done."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def run_program(arguments: Sequence[str]) -> int:
    """Run the verb; the exit code. Nothing raised by it gets past here."""
    arguments = list(arguments)
    is_debug = "--debug" in _list_own(arguments)
    if is_debug:
        arguments.remove("--debug")
    never_mind_stderr()
    guard_stdout()
    engine_logs.silence()
    try:
        returned = program.main(arguments, prog_name="umpteen", standalone_mode=False)
        sys.stdout.flush()
    except (KeyboardInterrupt, click.Abort):
        return EXIT_INTERRUPTED
    except click.ClickException as error:
        return _show_error(_translate(error, arguments), arguments, is_debug=is_debug)
    except ReaderLeftError as error:  # `umpteen logs … | head`
        return error.exit_code
    except UmpteenError as error:
        return _show_error(error, arguments, is_debug=is_debug)
    except Exception as error:
        return _show_error(_explain(error), arguments, is_debug=is_debug)
    return returned if isinstance(returned, int) else 0


def _list_own(arguments: Sequence[str]) -> Sequence[str]:
    """The words among which `--debug` is ours: not among those of another program."""
    verb = next((place for place, word in enumerate(arguments) if word[:1] != "-"), 0)
    if arguments[verb : verb + 1] == ["schedule"]:
        return arguments[:verb]
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _explain(error: Exception) -> UmpteenError:
    """What nobody has foreseen where it came about."""
    from umpteen.system.spawn import explain_shortage

    said = f"unexpected: {type(error).__name__}: {error}"
    return explain_shortage(error) or UmpteenError(said, code=ErrorCode.UNEXPECTED)


def _translate(error: click.ClickException, arguments: Sequence[str]) -> UmpteenError:
    hint = "umpteen --help"
    message = error.format_message().rstrip(".")
    if isinstance(error, click.UsageError) and error.ctx:
        hint = f"{error.ctx.command_path} --help"
    if isinstance(error, click.NoSuchOption) and error.ctx:
        flag = error.option_name
        hint = _hint_value(flag, arguments) or _hint_flag(flag, error.ctx, arguments)
        return SettingsError(f"there is no flag {flag}", hint)
    if isinstance(error, click.MissingParameter) and error.param and error.ctx:
        choices = _list_choices(error.param)
        message = f"Missing argument {error.param.human_readable_name}"
        message += f": {choices}" if choices else ""
        hint = f"for example {_find_example(error.ctx)}; {hint} says more"
    elif isinstance(error, click.BadParameter) and error.param:
        is_flag = isinstance(error.param, click.Option)
        flag = error.param.opts[0] if is_flag else error.param.human_readable_name
        message = f"{flag}: {error.message.rstrip('.')}"
    return SettingsError(message, hint)


def _hint_flag(flag: str, context: click.Context, arguments: Sequence[str]) -> str:
    """The nearest flags, and the command line where the flag is the command's own."""
    if flag in _MEANT_FLAGS:
        return _MEANT_FLAGS[flag]
    options = [name for p in context.command.get_params(context) for name in p.opts]
    flags = sorted(o for o in options if o.startswith("--"))
    command = _hint_command(flag, context, arguments)
    if not command:
        return nearest_hint(flag, flags)
    near = find_nearest(flag, flags)
    nearest = f"{say_nearest(near)} A command with flags goes in quotes: " if near else ""
    return nearest + command


def _hint_value(flag: str, arguments: Sequence[str]) -> str:
    """`rate=1`, where a flag is called as a placeholder of the command; else empty."""
    name = flag.lstrip("-")
    if not any(f"{{{name}}}" in word or f"{{{name}:" in word for word in arguments):
        return ""
    for word, following in itertools.pairwise([*arguments, "1"]):
        if word.partition("=")[0] == flag:
            value = word.partition("=")[2] or following
            return f"values have no dashes: {shlex.quote(f'{name}={value}')}"
    return ""


def _hint_command(flag: str, context: click.Context, arguments: Sequence[str]) -> str:
    """What to type where a command was given to `run` without quotes; empty where none was."""
    names = [word.partition("=")[0] for word in arguments]
    if names[0] != "run" or flag not in names:
        return ""
    place, with_value = 1, _list_with_value(context)
    while arguments[place : place + 1] and arguments[place].startswith("-"):
        place += 1 + (arguments[place] in with_value)
    if place >= names.index(flag) or not _is_program(arguments[place]):
        return ""
    from umpteen.formats import write_command

    command = shlex.quote(write_command(arguments[place:]))
    return shlex.join(["umpteen", *arguments[:place]]) + f" {command}"


def _list_with_value(context: click.Context) -> list[str]:
    """The flags that take the word behind them."""
    options = [p for p in context.command.params if isinstance(p, click.Option)]
    return [name for option in options if not option.is_flag for name in option.opts]


def _is_program(word: str) -> bool:
    """Whether a word can begin a command: a program that is found, or a script."""
    from umpteen.formats import find_program

    return bool(shutil.which(word) or find_program(word))


def _list_choices(parameter: click.Parameter) -> str:
    """`bash, zsh or fish`; empty where anything may be given."""
    if not isinstance(parameter.type, click.Choice):
        return ""
    *others, last = map(str, parameter.type.choices)
    return f"{', '.join(others)} or {last}"


def _find_example(context: click.Context) -> str:
    """The first one of the verb's own."""
    lines = (context.command.epilog or "").splitlines()
    return next((line.strip() for line in lines if line.startswith("  ")), "")


def _show_error(error: UmpteenError, arguments: Sequence[str], *, is_debug: bool) -> int:
    if is_debug:
        import traceback

        traceback.print_exc()
    if "--json" in arguments and not isinstance(error, OutputError):
        with contextlib.suppress(OutputError):
            sys.stdout.write(json.dumps(error.to_dict()) + "\n")
            sys.stdout.flush()
    else:
        if is_debug and isinstance(error, BackendError) and error.last_lines:
            sys.stderr.writelines(f"{clean(line)}\n" for line in error.last_lines.splitlines())
        hint = f"\n\nhint: {clean(error.hint)}" if error.hint else ""
        sys.stderr.write(f"error: {clean(str(error))}{hint}\n")
    return error.exit_code or EXIT_WRONG_USE
