"""What features cost where they are not used: this checkout beside an earlier commit of it.

Both run the same plain tasks, in turns. The earlier one is taken out of git's history, and
runs with this Python and the same libraries.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.measuring import (
    Goal,
    build_environment,
    compare,
    fresh_folder,
    open_scratch,
    parse_options,
    publish,
    read_status,
    render_table,
    render_time,
    run_rounds,
    run_timed,
    write_job,
)

# The last commit before retries, dependencies and weights.
BEFORE = "407747c"
_ROOT = Path(__file__).parents[1]
_START = (
    "import sys; sys.path.insert(0, {source!r}); sys.argv[0] = 'umpteen'; "
    "from umpteen.cli.main import main; main()"
)


def take_out(commit: str, folder: str) -> str:
    """The package as it was at that commit; its path."""
    archive = subprocess.run(
        ["git", "archive", commit, "src"], cwd=_ROOT, capture_output=True, check=True
    )
    subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
    return f"{folder}/src"


def run_tasks(
    source: str, program: str, tasks: int, scratch: str, environment: Mapping[str, str]
) -> float:
    folder = fresh_folder(scratch, "run")
    write_job(f"{folder}/t.json", tasks, lambda number: f"{program} {number}")
    start = [sys.executable, "-c", _START.format(source=source)]
    command = [*start, "run", "t.json", "--slots", "2", "-q"]
    seconds = run_timed(command, folder, environment).seconds
    counts = read_status(f"{folder}/umpteen-results/t", folder, environment)
    if counts["succeeded"] != tasks:
        sys.exit(f"bench: {tasks} tasks ended as {counts}")
    return seconds


def main() -> None:
    options = parse_options(__doc__, tasks=20_000, rounds=7)
    commit = os.environ.get("BEFORE", BEFORE)
    with open_scratch(options, "before-and-now") as scratch:
        environment = build_environment(scratch)
        sources = {"before": take_out(commit, scratch), "now": str(_ROOT / "src")}
        groups: list[dict[str, Callable[[], float]]] = []
        for program in ("true", "/bin/true"):
            groups.append(
                {
                    f"{when} {program}": functools.partial(
                        run_tasks, source, program, options.tasks, scratch, environment
                    )
                    for when, source in sources.items()
                }
            )
        for source in sources.values():
            run_tasks(source, "true", 20, scratch, environment)
        found = run_rounds(groups, options.rounds, lambda seconds: f"{seconds:.2f} s")
        goal = Goal(1.03)
        rows = []
        for program in ("true", "/bin/true"):
            now, before = found[f"now {program}"], found[f"before {program}"]
            ratio = compare(now, before)
            rows.append([
                f"`{program} N`", f"{options.tasks:,}", render_time(now, options.tasks),
                render_time(before, options.tasks), str(ratio), str(goal),
                goal.judge(ratio.median),
            ])  # fmt: skip
        head = ["commands", "tasks", "now", f"at {commit}", "now / then", "target", ""]
        note = f"Medians of {options.rounds} rounds; plain tasks that use none of the new features."
        publish("before_and_now", [*render_table(head, rows), "", note], scratch, options)


if __name__ == "__main__":
    main()
