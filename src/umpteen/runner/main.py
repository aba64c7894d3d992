"""On the machine: runs batches, and records what happened to each of their tasks.

    python3 -m umpteen.runner.main ADDRESS BATCHES      BATCHES such as 1-3,7

Takes batch files of a store (or one from elsewhere, see `import_batch`), forks lanes that execute
the commands, gives them tickets, and alone writes the records. Here is its beginning, from the
command line on; then `parts` puts the runner together, `loop` runs it, and `closing` ends it.
Knows nothing of executors and of how a job was planned. Standard library alone.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

from umpteen.errors import EXIT_SUCCEEDED, RUNNER_CRASHED, UmpteenError
from umpteen.model.command import RUNNER_VARIABLE
from umpteen.runner.arguments import Options
from umpteen.runner.complaints import Complaints
from umpteen.runner.launch import build_runner_command
from umpteen.runner.lease import Lease
from umpteen.runner.loop import Runner
from umpteen.runner.parts import build_parts
from umpteen.runner.workload import find_work
from umpteen.system.resources import read_capacity
from umpteen.system.spawn import explain_shortage
from umpteen.system.streams import fill_streams, never_mind_stderr

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the batches named on the command line; the exit code.

    0 when every outcome is recorded, whatever the outcomes are; with `--strict` 1 where a
    task did not succeed; 2 wrong use; 3 the store could not be read or written. Where nobody
    watches it and a signal has kept it from some tasks: 128 and the number of that signal.
    """
    token = os.environ.get(RUNNER_VARIABLE, "")
    fill_streams()
    never_mind_stderr()
    complaints = Complaints(are_for_people=True)
    try:
        options = Options(sys.argv[1:] if arguments is None else arguments)
        complaints = Complaints(are_for_people=options.is_alone)
        if options.token != token or not token:
            _start_over_with_token(options.token or os.urandom(6).hex())
        return _run(options, token, complaints)
    except Exception as error:
        told = error if isinstance(error, UmpteenError) else explain_shortage(error)
        if told is None:
            sys.excepthook(*sys.exc_info())
            return RUNNER_CRASHED
        complaints.add(str(told), told.hint)
        # Other batches need less memory, or find more of it: that is no refusal.
        return RUNNER_CRASHED if isinstance(error, MemoryError) else told.exit_code


def _start_over_with_token(token: str) -> None:
    """Begin again as the same process, with the token in the environment that /proc shows."""
    os.environ[RUNNER_VARIABLE] = token
    rest = [word for word in sys.argv[1:] if not word.startswith("--token")]
    command = [*build_runner_command(), f"--token={token}", *rest]
    os.execv(command[0], command)


def _run(options: Options, token: str, complaints: Complaints) -> int:
    work = find_work(options)
    if work.note:
        with contextlib.suppress(OSError):
            os.write(2, f"{work.note}\n".encode())
    if not work.batches:
        return EXIT_SUCCEEDED
    if options.lease_fd >= 0:
        lease = Lease.adopt(token, options.lease_fd)
    else:
        lease = Lease.create(token, work.store, work.slots)
    capacity = read_capacity()
    if options.cpus:
        capacity = capacity._replace(cpus=options.cpus)
    if options.memory:
        capacity = capacity._replace(memory=min(capacity.memory, options.memory))
    parts = build_parts(work, token, lease, capacity, options, complaints)
    runner = Runner(parts, options.watch_fd, options.orphan_grace_s)
    return runner.run(is_alone=options.is_alone, is_strict=options.strict)


if __name__ == "__main__":
    sys.exit(main())
