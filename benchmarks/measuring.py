"""What the benchmarks share: timed commands, rounds, ratios, and the tables made of them."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from umpteen import __version__

__all__ = [
    "ROOT",
    "Goal",
    "Options",
    "Spread",
    "Timing",
    "build_environment",
    "compare",
    "fresh_folder",
    "open_scratch",
    "parse_options",
    "publish",
    "read_status",
    "render_memory",
    "render_table",
    "render_time",
    "run_rounds",
    "run_timed",
    "say",
    "umpteen",
    "write_job",
]

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_STDERR_SHOWN = 2000

Result = TypeVar("Result")


# --- options and folders ----------------------------------------------------------------


class Options(NamedTuple):
    """What every benchmark is told; `more` has the flags of its own.

    full: how many tasks the targets are for.
    """

    tasks: int
    full: int
    rounds: int
    scratch: str | None
    docs: str | None
    more: Mapping[str, int]


def parse_options(
    description: str | None, *, tasks: int, rounds: int = 5, more: Mapping[str, int] = {}
) -> Options:
    """The flags, with the defaults of a full run."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--tasks", type=int, default=tasks, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=rounds, help="default: %(default)s")
    for name, default in more.items():
        parser.add_argument(f"--{name}", type=int, default=default, help="default: %(default)s")
    parser.add_argument("--scratch", help="an existing folder to work in; it is not emptied")
    parser.add_argument("--docs", help="a page whose table is renewed")
    given = parser.parse_args()
    return Options(
        given.tasks,
        tasks,
        given.rounds,
        given.scratch,
        given.docs,
        {name: getattr(given, name.replace("-", "_")) for name in more},
    )


@contextlib.contextmanager
def open_scratch(options: Options, name: str) -> Iterator[str]:
    """A folder to work in, removed only at the end: see the traps in docs/benchmarks.md."""
    parent = options.scratch or os.environ.get("TMPDIR") or "/var/tmp"
    folder = tempfile.mkdtemp(prefix=f"umpteen-{name}-", dir=parent)
    try:
        yield folder
    finally:
        if options.scratch is None:
            say("removing what was written")
            shutil.rmtree(folder, ignore_errors=True)


def fresh_folder(scratch: str, name: str) -> str:
    """A folder that nobody has used."""
    return tempfile.mkdtemp(prefix=f"{name}-", dir=scratch)


def build_environment(scratch: str) -> dict[str, str]:
    """The variables of every command: nothing of the user's is read or written."""
    home = os.path.join(scratch, "home")
    os.makedirs(home, exist_ok=True)
    dropped = ("PYTHONDONTWRITEBYTECODE", "PARALLEL")
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in dropped and not key.startswith(("HYPERSHELL_", "UMPTEEN_"))
    }
    path = os.pathsep.join((ROOT, os.path.join(ROOT, "src")))
    own = {"HOME": home, "XDG_DATA_HOME": home, "PARALLEL_HOME": home, "PYTHONPATH": path}
    return {**kept, **own}


def write_job(path: str, tasks: int, command: Callable[[int], str]) -> None:
    """A job file of so many tasks, written without holding them."""
    with open(path, "w", encoding="utf-8") as file:
        file.write('{"tasks":[')
        for number in range(tasks):
            file.write("," if number else "")
            file.write(json.dumps({"command": command(number)}, separators=(",", ":")))
        file.write("]}\n")


# --- commands ---------------------------------------------------------------------------


class Timing(NamedTuple):
    """One run of a command. peak_bytes: of the process itself, not of what it started."""

    seconds: float
    peak_bytes: int
    stdout: str


def umpteen(*arguments: str) -> list[str]:
    """The command line of the umpteen that belongs to this Python."""
    beside = os.path.join(os.path.dirname(sys.executable), "umpteen")
    found = beside if os.path.exists(beside) else shutil.which("umpteen")
    if found is None:
        sys.exit("bench: there is no umpteen beside this Python; scripts/setup makes one")
    return [found, *arguments]


def run_timed(
    command: Sequence[str],
    folder: str,
    environment: Mapping[str, str],
    *,
    stdin: str = os.devnull,
    keep_stdout: bool = False,
    accepted: Sequence[int] = (0,),
) -> Timing:
    """Run a command in a folder, with no unwritten pages of others before it.

    The peak that the kernel tells of a child is at least what its parent had at the fork, so
    whoever calls this must stay small.
    """
    output = os.path.join(folder, ".bench-stdout") if keep_stdout else os.devnull
    errors = os.path.join(folder, ".bench-stderr")
    with open(stdin, "rb") as given, open(output, "wb") as out, open(errors, "wb") as err:
        os.sync()
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=given, stdout=out, stderr=err
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in accepted:
        with open(errors, encoding="utf-8", errors="replace") as file:
            said = file.read()[-_STDERR_SHOWN:]
        sys.exit(f"bench: {' '.join(command)}\nended with {process.returncode}:\n{said}")
    text = ""
    if keep_stdout:
        with open(output, encoding="utf-8") as file:
            text = file.read()
    unit = 1 if sys.platform == "darwin" else 1024
    return Timing(seconds, usage.ru_maxrss * unit, text)


def read_status(address: str, folder: str, environment: Mapping[str, str]) -> dict[str, int]:
    """Tasks by state, as `umpteen status` reads them from the records."""
    command = umpteen("status", address, "--json")
    timing = run_timed(command, folder, environment, keep_stdout=True, accepted=(0, 1))
    counts: dict[str, int] = json.loads(timing.stdout)["counts"]
    return counts


# --- rounds and ratios ------------------------------------------------------------------


def run_rounds(
    groups: Sequence[Mapping[str, Callable[[], Result]]],
    rounds: int,
    show: Callable[[Result], str],
) -> dict[str, list[Result]]:
    """Run every contender once a round; those of a group one after the other, in rotating order."""
    found: dict[str, list[Result]] = {name: [] for group in groups for name in group}
    for number in range(rounds):
        for group in groups:
            names = list(group)
            first = number % len(names)
            for name in names[first:] + names[:first]:
                result = group[name]()
                found[name].append(result)
                say(f"round {number + 1} of {rounds}: {name}: {show(result)}")
    return found


class Spread(NamedTuple):
    """Ratios of all rounds."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f}–{self.high:.2f})"


def compare(above: Sequence[float], below: Sequence[float]) -> Spread:
    """The ratio round by round: what changes on the machine meets both alike."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    return Spread(statistics.median(ratios), min(ratios), max(ratios))


class Goal(NamedTuple):
    """What a figure is held against."""

    limit: float
    is_least: bool = False
    unit: str = "×"

    def __str__(self) -> str:
        word = "at least" if self.is_least else "at most"
        return f"{word} {self.limit:g} {self.unit}"

    def judge(self, value: float) -> str:
        """`met` or `not met`."""
        is_met = value >= self.limit if self.is_least else value <= self.limit
        return "met" if is_met else "**not met**"


# --- tables -----------------------------------------------------------------------------


def render_time(seconds: Sequence[float], tasks: int = 0) -> str:
    """The median, and how many tasks a second that is."""
    median = statistics.median(seconds)
    shown = f"{median:.2f} s" if median < 100 else f"{median:.0f} s"
    return f"{shown}, {tasks / median:,.0f}/s" if tasks else shown


def render_memory(sizes: Sequence[int]) -> str:
    """The median in MB of a million bytes."""
    return f"{statistics.median(sizes) / 1e6:.0f} MB"


def render_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def describe_machine(scratch: str) -> str:
    """The machine in one line, without a path."""
    parts = [
        f"{os.cpu_count()} cores ({_read_cpu()})",
        f"{platform.system()} {platform.release()}",
        _describe_file_system(scratch),
        f"Python {platform.python_version()}",
        f"umpteen {__version__}",
        time.strftime("%Y-%m-%d"),
    ]
    return "Machine: " + ", ".join(part for part in parts if part) + "."


def _read_cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            found = re.search(r"^model name\s*:\s*(.+)$", file.read(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def _describe_file_system(folder: str) -> str:
    best, found = "", ""
    try:
        with open("/proc/self/mounts", encoding="utf-8") as file:
            mounts = [line.split() for line in file]
    except OSError:
        return ""
    for _, point, kind, flags, *_ in mounts:
        is_above = os.path.commonpath([point, os.path.realpath(folder)]) == point
        if is_above and len(point) >= len(best):
            best = point
            found = f"{kind} with discard" if "discard" in flags.split(",") else kind
    return found


def publish(name: str, lines: Sequence[str], scratch: str, options: Options) -> None:
    """Print a benchmark's part of the page; with `--docs`, put it there between its marks."""
    is_trial = options.tasks < options.full
    warning = ["A trial with few tasks: start-up rules, the verdicts mean nothing.", ""]
    text = "\n".join([*(warning if is_trial else []), *lines, "", describe_machine(scratch)])
    print(text, flush=True)
    if options.docs is None:
        return
    if is_trial:
        say(f"a trial: {options.docs} is left as it is")
        return
    with open(options.docs, encoding="utf-8") as file:
        page = file.read()
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        sys.exit(f"bench: {options.docs} has no place for {name}")
    with open(options.docs, "w", encoding="utf-8") as file:
        file.write(f"{before}{begin}\n\n{text}\n\n{end}{after}")


def say(line: str) -> None:
    """Progress, beside the table."""
    print(f"bench: {line}", file=sys.stderr, flush=True)
