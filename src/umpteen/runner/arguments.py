"""The command line of the runner."""

from __future__ import annotations

import getopt
import sys
from collections.abc import Sequence

from umpteen.errors import EXIT_SUCCEEDED, SettingsError
from umpteen.model.forms import parse_ranges
from umpteen.store.identity import parse_id

__all__ = ["Options"]


class Options:
    """The command line. getopt, as argparse would take a quarter of the time to start."""

    def __init__(self, arguments: Sequence[str]) -> None:
        try:
            given, rest = getopt.gnu_getopt(arguments, "", _OPTIONS)
        except getopt.GetoptError as error:
            raise SettingsError(f"umpteen batch: {error.msg}") from error
        found = dict(given)
        if "--help" in found:
            sys.stdout.write(_USAGE + "\n")
            sys.exit(EXIT_SUCCEEDED)
        if not 1 <= len(rest) <= 2:
            raise SettingsError("nothing to run", _USAGE)
        self.place = rest[0]
        numbers = parse_ranges(rest[1]) if rest[1:] else []
        self.batches = [str(number) for part in numbers for number in part]
        self.batch_id, self.token = found.get("--batch-id", ""), found.get("--token", "")
        self.lease_fd, self.watch_fd = (
            int(found.get(name, "-1")) for name in ("--lease-fd", "--watch-fd")
        )
        self.slots = int(found.get("--slots", "0"))
        self.cpus = int(found.get("--cpus", "0"))  # that an engine gave us, 0 for the machine's
        self.memory = int(found.get("--memory", "0"))  # bytes that it gave us, and no more
        self.until_s = float(found.get("--until", "0"))  # when we are ended, since 1970; 0: never
        self.orphan_grace_s = float(found.get("--orphan-grace", "inf"))
        self.take_over, self.strict = "--take-over" in found, "--strict" in found
        self.echo = "--echo" in found
        self.store = parse_id(found.get("--store"))

    @property
    def is_carried(self) -> bool:
        """Whether an engine started it, maybe as another user than who handed in."""
        return self.take_over and self.watch_fd >= 0 and self.lease_fd < 0

    @property
    def is_alone(self) -> bool:
        """Whether no launcher learns from the store what is left, as `umpteen batch` has none."""
        return self.lease_fd < 0 and self.watch_fd < 0


_USAGE = """usage: umpteen batch ADDRESS BATCHES | FILE  [--strict] [--take-over] [--echo]
  ADDRESS BATCHES  a store, and numbers of its batches such as 1-3,7
  FILE             a batch file from elsewhere
  --strict         exit with 1 where a task did not succeed
  --take-over      end an earlier start that lives
  --echo           copy what tasks print to stdout and stderr, as each ends"""


_OPTIONS = [
    "help", "batch-id=", "token=", "lease-fd=", "watch-fd=", "slots=", "cpus=", "memory=",
    "orphan-grace=", "until=", "store=", "take-over", "strict", "echo",
]  # fmt: skip
