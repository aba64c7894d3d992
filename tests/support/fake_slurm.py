"""A Slurm that is one file: the commands that umpteen calls, a queue in SQLite, jobs that run.

For what a real one does not do on demand: it refuses by limits, fails, is slow, and lies. Each
command, and the controller that runs jobs, is this file as a program; standard library alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["FakeSlurm"]

_PROGRAMS = ("sbatch", "squeue", "scancel", "scontrol", "sinfo", "sacct")
_SHIM = '#!/bin/sh\nexec {python} -I -S {file} {name} "$@"\n'
_TABLES = """
PRAGMA journal_mode=WAL;
CREATE TABLE calls (time REAL, program TEXT, arguments TEXT, outcome TEXT);
CREATE TABLE jobs (id INTEGER PRIMARY KEY, name TEXT, comment TEXT, script TEXT,
  environment TEXT, folder TEXT, cpus TEXT, memory TEXT, begin REAL, after TEXT, is_array INTEGER);
CREATE TABLE elements (job INTEGER, number INTEGER, state TEXT, reason TEXT, code INTEGER,
  ended REAL, PRIMARY KEY (job, number));
CREATE INDEX waiting ON elements (state, job, number);
CREATE TABLE signals (job INTEGER, number INTEGER, signal INTEGER);
"""
_LIVING = "('PENDING','RUNNING')"
_BUSY = "error: Socket timed out on send/recv operation"
_SUBMITTED_TOO_MANY = (
    "error: AssocMaxSubmitJobLimit",
    (
        "error: Batch job submission failed: Job violates accounting/QOS policy "
        "(job submit limit, user's size and/or time limits)"
    ),
)
_FULL = (
    "error: Slurm temporarily unable to accept job, sleeping and retrying.",
    "error: Batch job submission failed: Resource temporarily unavailable",
)
_FIELDS = {
    "ArrayJobID": "job", "ArrayTaskID": "numbers", "State": "state", "exit_code": "code",
    "NodeList": "node", "Reason": "reason", "Name": "name", "Comment": "comment",
    "%F": "job", "%K": "numbers", "%T": "state", "%r": "reason", "%j": "name", "%c": "cpus",
    "%m": "memory", "%k": "comment",
}  # fmt: skip
_TURN_S, _KILL_WAIT_S = 0.02, 2.0


class Settings(NamedTuple):
    """How the cluster is, and how badly it behaves."""

    array_size: int = 1001  # MaxArraySize
    job_count: int = 10_000  # MaxJobCount: those that wait, run, or are not forgotten yet
    submit_jobs: int = 0  # how many a user may have that wait or run; 0: no limit
    says_submit_jobs: bool = False  # whether scontrol tells that limit
    cpus: int = 4  # of its node: so many elements of one CPU run at once
    job_age_s: float = 300.0  # after which an ended one is forgotten
    failing: float = 0.0  # the share of calls that are not answered, though some did their work
    lying: float = 0.0  # of squeue's answers that are empty, or cut short
    slow_s: float = 0.0  # how long every tenth call takes


class FakeSlurm:
    """`start()` it; commands find it by `environment`."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder, self.settings = folder, Settings(**settings)
        self._controller: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What has Slurm's commands be these."""
        return {
            "SLURM_CONF": str(self.folder),
            "PATH": f"{self.folder}/bin:{os.environ['PATH']}",
        }

    def start(self) -> None:
        """Its commands answer, and jobs run, when this returns."""
        (self.folder / "bin").mkdir(parents=True)
        (self.folder / "settings.json").write_text(json.dumps(self.settings._asdict()))
        with contextlib.closing(sqlite3.connect(self.folder / "queue.db")) as queue:
            queue.executescript(_TABLES)
        for name in _PROGRAMS:
            path = self.folder / "bin" / name
            path.write_text(_SHIM.format(python=sys.executable, file=__file__, name=name))
            path.chmod(0o755)
        command = [sys.executable, "-I", "-S", __file__, "controller"]
        with (self.folder / "controller.log").open("wb") as log:
            self._controller = subprocess.Popen(
                command, env={**os.environ, **self.environment}, stderr=log, start_new_session=True
            )

    def stop(self) -> None:
        """End all jobs, and the controller."""
        if self._controller:
            self._controller.terminate()
            self._controller.wait(timeout=30)

    def ask(self, *command: str) -> subprocess.CompletedProcess[str]:
        """What one of its commands answers."""
        environment = {**os.environ, **self.environment}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=30, check=False
        )

    def select(self, question: str) -> list[tuple[Any, ...]]:
        """What its tables say."""
        with contextlib.closing(_connect(self.folder)) as queue:
            return queue.execute(question).fetchall()

    def count_calls(self) -> Counter[str]:
        """How often each command was called."""
        return Counter(dict(self.select("SELECT program, count(*) FROM calls GROUP BY program")))

    def find_busiest(self, window_s: float) -> float:
        """The most calls a second, averaged over a window of so many seconds."""
        times = [called for (called,) in self.select("SELECT time FROM calls ORDER BY time")]
        first, most = 0, 0
        for last, called in enumerate(times):
            while called - times[first] > window_s:
                first += 1
            most = max(most, last - first + 1)
        return most / window_s


# --- the commands -----------------------------------------------------------------------------


class RefusedError(Exception):
    """What a command says on stderr, and ends with 1."""


class Words(NamedTuple):
    """A command line: options by name, and what is none."""

    options: dict[str, str]
    rest: list[str]


def _connect(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(folder / "queue.db", timeout=60, isolation_level=None)


@contextlib.contextmanager
def _writing(queue: sqlite3.Connection) -> Iterator[None]:
    queue.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        queue.execute("ROLLBACK")
        raise
    queue.execute("COMMIT")


def _read_words(arguments: Sequence[str], with_value: str = "") -> Words:
    """with_value: the letters of short options that take the next word."""
    options, rest, words = {}, [], list(arguments)
    while words:
        word = words.pop(0)
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            options[name] = value
        elif word.startswith("-") and len(word) > 1:
            options.update(dict.fromkeys(word[1:], ""))
            if word[-1] in with_value:
                options[word[-1]] = words.pop(0)
        else:
            rest.append(word)
    return Words(options, rest)


def _read_numbers(text: str) -> list[int]:
    found: list[int] = []
    for part in text.strip("[]").partition("%")[0].split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found


def _write_numbers(numbers: Sequence[int]) -> str:
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def _list_elements(queue: sqlite3.Connection, word: str) -> list[tuple[int, int]]:
    """Those that `12`, `12_3` or `12_[0-3,5]` names."""
    job, _, numbers = word.partition("_")
    if numbers:
        return [(int(job), number) for number in _read_numbers(numbers)]
    rows = queue.execute("SELECT job, number FROM elements WHERE job = ?", (int(job),))
    return rows.fetchall()


def _sbatch(queue: sqlite3.Connection, settings: Settings, arguments: Sequence[str]) -> str:
    given = _read_words(arguments)
    script = Path(given.rest[0]).read_text() if given.rest else sys.stdin.read()
    lines = re.findall(r"^#SBATCH (.*)$", script, re.MULTILINE)
    options = {**_read_words(lines).options, **given.options}
    numbers = _read_numbers(options["array"]) if "array" in options else [0]
    if max(numbers) >= settings.array_size:
        raise RefusedError("error: Batch job submission failed: Invalid job array specification")
    begin = re.fullmatch(r"now\+(\d+)", options.get("begin", "now+0"))
    dependency = options.get("dependency", "")
    after = re.findall(r"singleton|(?<=:)[\d_]+", dependency)
    with _writing(queue):
        (known,) = queue.execute("SELECT count(*) FROM elements").fetchone()
        (living,) = queue.execute(
            f"SELECT count(*) FROM elements WHERE state IN {_LIVING}"
        ).fetchone()
        if settings.submit_jobs and living + len(numbers) > settings.submit_jobs:
            raise RefusedError(*_SUBMITTED_TOO_MANY)
        if known + len(numbers) > settings.job_count:
            raise RefusedError(*_FULL)
        made = queue.execute(
            "INSERT INTO jobs (name, comment, script, environment, folder, cpus, memory, begin,"
            " after, is_array) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                options.get("job-name", "sbatch"), options.get("comment", "(null)"), script,
                json.dumps(dict(os.environ)),
                options.get("chdir", os.getcwd()), options.get("cpus-per-task", "1"),
                options.get("mem", "0"), time.time() + int(begin[1] if begin else 0),
                json.dumps(after),
                "array" in options,
            ),
        )  # fmt: skip
        job = made.lastrowid
        rows = [(job, number, "PENDING", "None", 0, 0.0) for number in numbers]
        queue.executemany("INSERT INTO elements VALUES (?, ?, ?, ?, ?, ?)", rows)
    return f"{job}\n"


def _squeue(queue: sqlite3.Connection, settings: Settings, arguments: Sequence[str]) -> str:
    del settings
    options, _ = _read_words(arguments, "Oo")
    names = options["name"].split(",") if "name" in options else []
    where = ["1" if options.get("states") == "all" else f"state IN {_LIVING}"]
    if names:
        where.append(f"name IN ({','.join('?' * len(names))})")
    if states := options.get("states", "all").replace("all", ""):
        where = [f"state = '{states}'", *where[1:]]
    if "jobs" in options:
        where.append(f"jobs.id IN ({options['jobs']})")
    rows = queue.execute(
        "SELECT job, number, state, reason, code, name, comment, cpus, memory, is_array"
        " FROM elements JOIN jobs ON jobs.id = job"
        f" WHERE {' AND '.join(where)} ORDER BY job, number",
        names,
    ).fetchall()
    alike: dict[tuple[Any, ...], list[int]] = {}
    for job, number, state, *more in rows:
        is_alone = "r" in options or state != "PENDING"
        alike.setdefault((job, number if is_alone else -1, state, *more), []).append(number)
    return "".join(
        _render(options, job, state, more, numbers)
        for (job, _, state, *more), numbers in alike.items()
    )


def _render(
    options: dict[str, str], job: int, state: str, more: Sequence[Any], numbers: list[int]
) -> str:
    reason, code, name, comment, cpus, memory, is_array = more
    told = {
        "job": job, "numbers": _write_numbers(numbers) if is_array else "N/A", "state": state,
        "code": code, "node": "" if state == "PENDING" else "n1", "reason": reason, "name": name,
        "cpus": cpus, "memory": memory, "comment": comment,
    }  # fmt: skip
    if "O" in options:
        fields = re.findall(r"(\w+):([^,]*)", options["O"])
        return "".join(f"{told[_FIELDS[field]]}{end}" for field, end in fields) + "\n"
    text = options.get("o", "%F %j %T")
    return re.sub("%[a-zA-Z]", lambda found: str(told[_FIELDS[found[0]]]), text) + "\n"


def _scancel(queue: sqlite3.Connection, settings: Settings, arguments: Sequence[str]) -> str:
    del settings
    options, words = _read_words(arguments)
    number = signal.Signals[f"SIG{options['signal']}"] if "signal" in options else 0
    with _writing(queue):
        for word in words:
            for element in _list_elements(queue, word):
                _cancel(queue, element, number, options.get("state"))
        if "user" in options:
            rows = queue.execute(f"SELECT job, number FROM elements WHERE state IN {_LIVING}")
            for element in rows.fetchall():
                _cancel(queue, element, number, options.get("state"))
    return ""


def _cancel(
    queue: sqlite3.Connection, element: tuple[int, int], number: int, state: str | None
) -> None:
    where = "WHERE job = ? AND number = ?"
    row = queue.execute(f"SELECT state FROM elements {where}", element).fetchone()
    if not row or row[0] not in _LIVING or (state and row[0] != state):
        return
    if row[0] == "PENDING" and not number:
        changed = "state = 'CANCELLED', ended = ?, code = 0"
        queue.execute(f"UPDATE elements SET {changed} {where}", (time.time(), *element))
    elif row[0] == "RUNNING":
        queue.execute("INSERT INTO signals VALUES (?, ?, ?)", (*element, number))


def _scontrol(queue: sqlite3.Connection, settings: Settings, arguments: Sequence[str]) -> str:
    del queue
    if list(arguments[:2]) == ["show", "config"]:
        name = Path(os.environ["SLURM_CONF"]).name
        return (
            f"ClusterName             = {name}\nMaxArraySize            = {settings.array_size}\n"
            f"MaxJobCount             = {settings.job_count}\n"
        )
    if list(arguments[:2]) == ["show", "assoc_mgr"]:
        limit = settings.submit_jobs if settings.says_submit_jobs else ""
        return f"Association Records\n\n    MaxJobs= MaxJobsAccrue= MaxSubmitJobs={limit}\n"
    raise RefusedError(f"error: the fake knows no {arguments}")


def _sinfo(queue: sqlite3.Connection, settings: Settings, arguments: Sequence[str]) -> str:
    del queue, arguments
    return f"1|{settings.cpus}|4000|(null)|main*|up\n"


def _sacct(queue: sqlite3.Connection, settings: Settings, arguments: Sequence[str]) -> str:
    del queue, settings, arguments
    raise RefusedError("error: Slurm accounting storage is disabled")


_COMMANDS = dict(
    zip(_PROGRAMS, (_sbatch, _squeue, _scancel, _scontrol, _sinfo, _sacct), strict=True)
)


def _answer(name: str, arguments: Sequence[str]) -> int:
    """Do what a command is to do, as badly as the settings say."""
    folder = Path(os.environ["SLURM_CONF"])
    settings = Settings(**json.loads((folder / "settings.json").read_text()))
    with contextlib.closing(_connect(folder)) as queue:
        with _writing(queue):
            trouble = _draw_trouble(queue, settings, name)
            row = time.time(), name, " ".join(arguments)[:1000], trouble
            queue.execute("INSERT INTO calls VALUES (?, ?, ?, ?)", row)
        if trouble == "slow":
            time.sleep(settings.slow_s)
        try:
            out = "" if trouble == "failed" else _COMMANDS[name](queue, settings, arguments)
        except RefusedError as error:
            sys.stderr.writelines(f"{name}: {line}\n" for line in error.args)
            return 1
    if trouble in ("failed", "unanswered"):
        sys.stderr.write(f"{name}: {_BUSY}\n")
        return 1
    if trouble == "empty":
        out = ""
    if trouble == "cut":
        out = out[: max(0, len(out) - 3)]
    sys.stdout.write(out)
    return 0


def _draw_trouble(queue: sqlite3.Connection, settings: Settings, name: str) -> str:
    """What is to go wrong with this call; never with two of a program in turn."""
    told = queue.execute("SELECT outcome FROM calls WHERE program = ?", (name,)).fetchall()
    if told and told[-1][0] not in ("", "slow"):
        return ""
    draw = random.Random(f"{name} {len(told)}")
    if draw.random() < settings.failing:
        return draw.choice(["failed", "unanswered"])
    if name == "squeue" and draw.random() < settings.lying:
        return draw.choice(["empty", "cut"])
    return "slow" if settings.slow_s and draw.random() < 0.1 else ""


# --- the controller ---------------------------------------------------------------------------


class Controller:
    """Starts what waits, as long as there is room, and tells how it ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = Settings(**json.loads((folder / "settings.json").read_text()))
        self.queue = _connect(folder)
        self.running: dict[tuple[int, int], subprocess.Popen[bytes]] = {}
        self.used: dict[tuple[int, int], int] = {}  # CPUs
        self.doomed: dict[tuple[int, int], float] = {}  # when what was cancelled is killed

    def run(self) -> None:
        """Until it is terminated."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            while True:
                self.deliver()
                self.reap()
                self.forget()
                self.start()
                time.sleep(_TURN_S)
        finally:
            for process in self.running.values():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def deliver(self) -> None:
        """The signals that scancel asks for; one that says none ends the job."""
        rows = self.queue.execute("SELECT rowid, job, number, signal FROM signals").fetchall()
        for rowid, job, number, wanted in rows:
            self.queue.execute("DELETE FROM signals WHERE rowid = ?", (rowid,))
            if process := self.running.get((job, number)):
                if wanted:
                    process.send_signal(wanted)
                else:
                    os.killpg(process.pid, signal.SIGTERM)
                    self.doomed.setdefault((job, number), time.monotonic() + _KILL_WAIT_S)
        for element, when in self.doomed.items():
            if time.monotonic() > when and element in self.running:
                os.killpg(self.running[element].pid, signal.SIGKILL)

    def reap(self) -> None:
        """Write down what has ended."""
        for element, process in list(self.running.items()):
            status = process.poll()
            if status is None:
                continue
            del self.running[element], self.used[element]
            state = "COMPLETED" if status == 0 else "FAILED"
            if self.doomed.pop(element, None):
                state = "CANCELLED"
            code = -status if status < 0 else status << 8
            self.queue.execute(
                "UPDATE elements SET state = ?, code = ?, ended = ? WHERE job = ? AND number = ?",
                (state, code, time.time(), *element),
            )

    def forget(self) -> None:
        """Nobody knows any more of what ended long ago."""
        before = time.time() - self.settings.job_age_s
        self.queue.execute(
            f"DELETE FROM elements WHERE state NOT IN {_LIVING} AND ended < ?", (before,)
        )

    def start(self) -> None:
        """What waits longest, as long as there is room."""
        free = self.settings.cpus - sum(self.used.values())
        if free <= 0:
            return
        rows = self.queue.execute(
            "SELECT DISTINCT job, begin, after, cpus FROM elements JOIN jobs ON jobs.id = job"
            " WHERE state = 'PENDING' ORDER BY job"
        ).fetchall()
        for job, begin, after, cpus in rows:
            reason = self.find_reason(job, begin, after)
            if reason:
                self.queue.execute(
                    "UPDATE elements SET reason = ? WHERE job = ? AND state = 'PENDING'",
                    (reason, job),
                )
                continue
            numbers = self.queue.execute(
                "SELECT number FROM elements WHERE job = ? AND state = 'PENDING'"
                " ORDER BY number LIMIT ?", (job, free // int(cpus)),
            ).fetchall()  # fmt: skip
            for (number,) in numbers:
                self.start_one(job, number, int(cpus))
                free -= int(cpus)
            if free <= 0:
                return

    def find_reason(self, own: int, begin: float, after: str) -> str:
        """Why a job does not start yet; empty where it may."""
        if begin > time.time():
            return "BeginTime"
        for word in json.loads(after):
            if word == "singleton" and self.has_twin(own):
                return "Dependency"
            job, _, number = word.replace("singleton", "0").partition("_")
            row = self.queue.execute(
                f"SELECT 1 FROM elements WHERE job = ? AND state IN {_LIVING}"
                + (" AND number = ?" if number else ""),
                (int(job), int(number)) if number else (int(job),),
            ).fetchone()
            if row:
                return "Dependency"
        return ""

    def has_twin(self, job: int) -> bool:
        """Whether an earlier job of the same name waits or runs."""
        return bool(
            self.queue.execute(
                "SELECT 1 FROM elements JOIN jobs ON jobs.id = job WHERE job < ? AND"
                f" state IN {_LIVING} AND name = (SELECT name FROM jobs WHERE id = ?)", (job, job),
            ).fetchone()
        )  # fmt: skip

    def start_one(self, job: int, number: int, cpus: int) -> None:
        """One element, as a process of its own session."""
        script, environment, folder, name = self.queue.execute(
            "SELECT script, environment, folder, name FROM jobs WHERE id = ?", (job,)
        ).fetchone()
        path = self.folder / f"{job}.sh"
        if not path.exists():
            path.write_text(script)
            path.chmod(0o755)
        told = {
            **json.loads(environment), "SLURM_JOB_ID": str(job), "SLURM_ARRAY_JOB_ID": str(job),
            "SLURM_ARRAY_TASK_ID": str(number), "SLURM_JOB_NAME": name, "SLURMD_NODENAME": "n1",
        }  # fmt: skip
        with _writing(self.queue):
            changed = self.queue.execute(
                "UPDATE elements SET state = 'RUNNING', reason = 'None'"
                " WHERE job = ? AND number = ? AND state = 'PENDING'", (job, number),
            )  # fmt: skip
            if not changed.rowcount:  # it was cancelled meanwhile
                return
            self.running[job, number] = subprocess.Popen(
                [path], env=told, cwd=folder if os.path.isdir(folder) else "/tmp",
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        self.used[job, number] = cpus


def main() -> int:
    """Be the command, or the controller, that the first argument names."""
    name, *arguments = sys.argv[1:]
    if name == "controller":
        Controller(Path(os.environ["SLURM_CONF"])).run()
        return 0
    return _answer(name, arguments)


if __name__ == "__main__":
    sys.exit(main())
