"""`umpteen initialize`: makes a bundle with no jobs yet."""

from __future__ import annotations

import click

from umpteen.bundles.folder import BundleFolder
from umpteen.config.reading import read_config
from umpteen.errors import EXIT_SUCCEEDED
from umpteen.report.printing import say

__all__ = ["initialize_command"]


@click.command(
    "initialize",
    short_help="Make a bundle with no jobs yet.",
    epilog="""\b
Examples:
  umpteen initialize sweep""",
)
@click.argument("name")
def initialize_command(name: str) -> int:
    """Make a bundle of that NAME with no jobs, for umpteen schedule --append to add some."""
    bundle = BundleFolder(read_config()).create(name)
    say(f"the bundle {bundle.name} has no jobs yet: {bundle.path}")
    return EXIT_SUCCEEDED
