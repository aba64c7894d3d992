"""`umpteen completion`: what a shell needs to complete verbs, flags and names."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["completion_command"]


@click.command(
    "completion",
    short_help="Print what makes a shell complete verbs, flags and names.",
    epilog="""\b
Examples:
  eval "$(umpteen completion bash)"
  umpteen completion fish > ~/.config/fish/completions/umpteen.fish""",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> int:
    """Print the lines that make SHELL complete the verbs of umpteen, their flags, and the names
    of jobs and tasks. Put the first example's line into ~/.bashrc, or the like into ~/.zshrc.
    """
    from umpteen.cli.group import program

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(program, {}, "umpteen", "_UMPTEEN_COMPLETE").source())
    return 0
