"""Whoever words a message anew changes that message and nothing else.

Each scenario runs twice, with umpteen and with a copy of it in which every message is worded
otherwise, in the command, its runners and its lanes. When the words are put back, both have said
the same, ended with the same codes, and left the same files.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.command import SOURCE, Umpteen
from tests.support.dask import DaskCluster
from tests.support.processes import list_processes
from tests.support.rewording import make_reworded, restore
from tests.support.wait import wait_until

# Ends each command as a process of its own would, without loading Python and umpteen again.
_SERVER = """import importlib, json, os, pkgutil, signal, sys
sys.path.insert(0, sys.argv.pop(1))
import umpteen
for module in pkgutil.walk_packages(umpteen.__path__, "umpteen."):
    if module.name != "umpteen.__main__":
        importlib.import_module(module.name)
from umpteen.cli.main import main
answers = os.fdopen(os.dup(1), "w")
for line in sys.stdin:
    told = json.loads(line)
    pid = os.fork()
    if not pid:
        signal.alarm(60)
        os.environ.clear()
        os.environ.update(told["environment"])
        os.chdir(told["folder"])
        for number, name in enumerate(told["streams"]):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC * (number > 0)), number)
        sys.path[:0] = told["shadows"]
        sys.argv[1:] = told["arguments"]
        code = 70
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    answers.write(f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\\n")
    answers.flush()
"""
# What is another in each run: tokens, places, times, processes.
_CHANCE = re.compile(
    r'(?<="place":")[^"]*|(?<="lease":")[^"]*|(?<=process )\d+|\bpid": ?\d+'
    r'|\w+(?:_s|_kb)": ?\d[^,}]*|"(?:time|seconds|created|upto|stderr_bytes)": ?\d[^,}]*'
    r"|\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b[0-9a-f]{12,40}\b"
    r"|\d{4}-\d\d-\d\d|\d\d:\d\d(?::\d\d(?:\.\d+)?)?|(?:under )?\d+(?:\.\d+)? s\b|\d+\.\d+"
)
_TOOK = re.compile(r", after \d+(?:\.\d+)? s\b")  # is left out where it was hardly any time


@dataclass(frozen=True)
class Copy(Umpteen):
    """One of the two, with all that it has said."""

    server: subprocess.Popen[str]
    packages: Path
    shadows: list[str] = field(default_factory=list)  # where packages are before the real ones
    said: list[str] = field(default_factory=list)

    def __call__(  # type: ignore[override]
        self, *arguments: str, env: dict[str, str] | None = None, stdin: str = ""
    ) -> None:
        code, printed = self.run_quietly(*arguments, env=env, stdin=stdin)
        self.said.append(f"{' '.join(arguments)}: exit code {code}\n{printed}")

    def run_quietly(
        self, *arguments: str, env: dict[str, str] | None = None, stdin: str = ""
    ) -> tuple[int, str]:
        """Run it to its end: the exit code and what it printed, which need not be the same."""
        streams = [self.home / name for name in ("stdin", "stdout", "stderr")]
        streams[0].write_text(stdin)
        told = {
            "arguments": arguments,
            "environment": self.environment | (env or {}),
            "folder": str(self.folder),
            "streams": list(map(str, streams)),
            "shadows": self.shadows,
        }
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.write(json.dumps(told) + "\n")
        self.server.stdin.flush()
        code = int(self.server.stdout.readline())
        return code, "\n".join(stream.read_text() for stream in streams[1:])

    def tell(self) -> list[str]:
        """All that is to be the same in both: what was said, and every file with its text."""
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        texts = [
            f"{path.relative_to(self.folder)}\n" + path.read_bytes().decode(errors="replace")
            for path in files
            if path.suffix != ".gz"
        ]
        here = str(self.folder.parent)
        told = [restore(text).replace(here, "HERE") for text in (*self.said, *texts)]
        told = [_CHANCE.sub("…", _TOOK.sub("", text)) for text in told]
        told[len(self.said) :] = sorted(told[len(self.said) :])
        return [line for text in told for line in text.splitlines()]


Scenario = Callable[[Copy], None]
Servers = list[tuple[Path, subprocess.Popen[str]]]


def no_such_thing(umpteen: Copy) -> None:
    umpteen("run", "echo {x}", "x=1..3", "--name", "job", "--slots", "1")
    for words in (
        "why job x=4", "why job 9", "logs job y", "cancel job zz", "retry job x=4", "status jbo",
        "status ./nowhere", "statsu job", "run --slotz 3 true", "run nofile.yaml", "why job 'x=*'",
        "export job --where stat=failed", "retry job --where state=lost", "logs job 1 --attempt 7",
    ):  # fmt: skip
        umpteen(*words.replace("'", "").split())
        umpteen(*words.replace("'", "").split(), "--json")


def missing_file(umpteen: Copy) -> None:
    umpteen.write(
        "job.yaml", "slots: 1\ntasks:\n- {command: 'echo 1 > results.csv', expect: result.csv}\n"
    )
    umpteen("run", "job.yaml")
    look(umpteen, "job", "0")
    umpteen("run", "job.yaml", "--verify", "--dry-run")


def skipped_tasks(umpteen: Copy) -> None:
    umpteen.write(
        "job.yaml",
        "slots: 1\ntasks:\n- {name: a, command: exit 3}\n- {name: b, command: 'true', after: a}\n"
        "- {name: c, command: 'true', after: b}\n- {name: d, command: 'true', after: {a: any}}\n"
        "- {name: e, command: 'true', after: {d: failed}}\n",
    )
    umpteen("run", "job.yaml")
    look(umpteen, "job", "a", "b", "c", "e")
    umpteen("collect", "job", "--json")
    umpteen("retry", "job", "b", "--dry-run")
    umpteen("retry", "job", "--dry-run", "--json")


def same_names(umpteen: Copy) -> None:
    umpteen.write("a.yaml", "tasks:\n- {name: x, command: 'true'}\n- {name: x, command: 'true'}\n")
    umpteen.write("b.yaml", "tasks:\n- {name: 'x{n}', command: 'true', matrix: {m: 1..2}}\n")
    umpteen.write("c.yaml", "tasks:\n- {name: 'x', command: 'echo {m}', matrix: {m: 1..2}}\n")
    umpteen.write("d.yaml", "tasks:\n- {name: x, command: 'true'}\n- {name: x/y, command: 'a'}\n")
    umpteen.write(
        "e.yaml", "slots: 1\ntasks:\n- {name: x, command: 'true'}\n- {name: X, command: 'true'}\n"
    )
    umpteen.write("f.csv", "a,b\n1,2\n1,2\n")
    umpteen.write("g.yaml", "tasks:\n- {name: x, command: 'true', tmeout: 3}\n")
    umpteen.write("h.json", '{"tasks": [{"command": 3}]}')
    umpteen.write("i.yaml", "tasks:\n- {name: a, command: b, after: c}\n")
    umpteen.write("j.yaml", "tasks:\n  - {")
    umpteen.write("k.txt", "echo 'a\n")
    for name in ("a.yaml", "b.yaml", "c.yaml", "d.yaml", "e.yaml", "g.yaml", "h.json", "i.yaml"):
        umpteen("run", name)
        umpteen("run", name, "--json")
    umpteen("run", "j.yaml")
    umpteen("run", "k.txt", "--dry-run")
    umpteen("run", "echo {a} {b}", "--from", "f.csv", "--name", "f")
    umpteen("run", "-", "--name", "x", stdin="tasks:\n- {name: x}\n")


_FROM_PYTHON = """import sys
sys.path[:0] = [sys.argv[1]]
import umpteen
from umpteen.errors import UmpteenError
Task = umpteen.Task
for job, more in [
    ([Task("true", "a"), Task("true", "a")], {"name": "job"}),
    ([Task("true", "a", after="b")], {"name": "job"}),
    ([Task("true", "a", timeout="soon")], {"name": "job"}),
    ([Task("echo {x}", "a")], {"name": "job"}),
    (["true"], {}), ([], {"name": "job"}), (3, {}), ("gone.yaml", {}), ("echo {x}", {"values": 3}),
    ("echo {x}", {"values": {"x": [1, 1]}}), (["true"], {"name": "job", "rerun": "never"}),
]:
    try:
        print(umpteen.run(job, slots=1, progress=False, **more))
    except UmpteenError as error:
        print(error.to_dict(), *getattr(error, "__notes__", ()))
    except ValueError as error:
        print(type(error), error)
tasks = [Task("exit 2", "a"), Task("true", "b", after="a")]
job = umpteen.run(tasks, name="j", slots=1, progress=False)
print(job, job.ok, [(task.state, task.reason, task.exit_code) for task in job], job.why("b"))
try:
    job["c"]
except KeyError as error:
    print(error)
"""


def from_python(umpteen: Copy) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", _FROM_PYTHON, umpteen.packages], cwd=umpteen.folder,
        env=umpteen.environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    umpteen.said.append(f"{done.returncode}\n{done.stdout}\n{done.stderr}")


def ends_by_others(umpteen: Copy) -> None:
    umpteen.write(
        "job.yaml",
        "slots: 1\ngrace: 1\ntasks:\n- {name: slow, command: sleep 60, timeout: 0.1}\n"
        "- {name: nul, command: 'no-such-program'}\n- {name: away, command: 'true', cwd: gone}\n"
        "- {name: long, command: yes, output_limit: 1K}\n- {name: big, command: 'true', cpus: 1}\n"
        "- {name: tried, command: exit 4, retries: {when: exit_code 4, wait: 0}}\n"
        "- {name: words, command: [no-such-program, a]}\n",
    )
    umpteen("run", "job.yaml")
    look(umpteen, "job", "slow", "nul", "away", "long", "tried", "words")
    umpteen("run", "sleep {x}", "x=60,61", "--name", "late", "--deadline", "0.5", "--slots", "1")
    look(umpteen, "late", "0", "1")
    umpteen("run", "exit {x}", "x=1..3", "--name", "m", "--max-failures", "1", "--slots", "1")
    look(umpteen, "m", "2")
    umpteen("run", "true", "--cpus", "5000", "--name", "wide")
    umpteen("run", "true", "--memory", "900000G", "--name", "wide")


def killed_runner(umpteen: Copy) -> None:
    kill = "kill -9 $(sed 's/.*) . //; s/ .*//' /proc/$PPID/stat); sleep 60"
    umpteen("run", kill, "--name", "job", "--slots", "1")
    look(umpteen, "job", "0")


def runner_that_cannot_go_on(umpteen: Copy) -> None:
    """It says why on its stderr, and ends; in the second case before it has begun."""
    impatient = {"UMPTEEN_STORE_PATIENCE_S": "0.1"}
    umpteen("run", "exit 1", "--name", "job", "--slots", "1")
    umpteen.write("umpteen-results/job/.umpteen/records/2", "in the way")
    umpteen("retry", "job", env=impatient)
    look(umpteen, "job", "0")
    umpteen("run", "false", "--name", "other", "--slots", "1")
    umpteen.write("umpteen-results/other/.umpteen/records/2", "in the way")
    umpteen("retry", "other", "--detach", env=impatient)
    wait_until(lambda: not is_told(umpteen, "other", '"state": "running"'))
    look(umpteen, "other", "0")
    umpteen("collect", "other", "--quiet", env=impatient)


def damaged_archive(umpteen: Copy) -> None:
    umpteen.write("code/a", "1")
    umpteen("run", "exit 1", "--name", "job", "--sync", "code", "--slots", "1")
    (archive,) = umpteen.store().glob(".umpteen/synced/*.gz")
    archive.write_bytes(b"")
    for place in umpteen.leases.glob("synced/*"):
        shutil.rmtree(place, ignore_errors=True)
    umpteen("retry", "job", "--quiet")
    umpteen("run", "exit 1", "--name", "job", "--sync", "gone")


def damaged_store(umpteen: Copy) -> None:
    umpteen("run", "exit {x}", "x=0,1", "--name", "job", "--slots", "1")
    for name, text in (
        ("batches/1.json", "{"), ("handed/1.json", "[]"), ("job.json", '{"name": 3}'),
        ("tasks/1.jsonl", "x\n"), ("cancel", "never"),
    ):  # fmt: skip
        path = umpteen.store() / ".umpteen" / name
        before = path.read_bytes() if path.exists() else b""
        path.write_text(text)
        umpteen("status", "job", "--json")
        umpteen("why", "job", "1", "--json")
        umpteen("retry", "job", "--dry-run")
        umpteen("ls")
        path.write_bytes(before)


def missing_packages(umpteen: Copy) -> None:
    for name in ("distributed", "aiobotocore", "asyncssh"):
        umpteen.write(f"shadow/{name}/__init__.py", f"raise ModuleNotFoundError(name={name!r})")
    umpteen.shadows.append(str(umpteen.folder / "shadow"))
    for flags in (
        "--executor dask --scheduler-address tcp://127.0.0.1:1", "--executor dask",
        "--executor ssh", "--executor locl", "--executor a.b:C", "--results s3://bucket/job",
        "--results sftp://127.0.0.1/job", "--results memory://job", "--results nosuch://job",
        "--results s3://", "--results {nmae}", "--name a/b", "--timeout soon", "--memory 4X",
        "--slots 0", "--slots 20000", "--env 3", "--only lr<", "--only xy=3", "--cwd gone",
        "--name j --prefix k", "--sync a:b:c",
    ):  # fmt: skip
        umpteen("run", "true", "--json", *flags.split(), env={"UMPTEEN_STORE_PATIENCE_S": "0"})


def retried(umpteen: Copy) -> None:
    umpteen("run", "[ -e now ] || exit {x}", "x=0..3", "--name", "job", "--slots", "1")
    umpteen("retry", "job", "--dry-run")
    umpteen("retry", "job", "--where", "exit_code=2", "--timeout", "5m")
    umpteen.write("now", "")
    umpteen("retry", "job", "--slots", "1")
    look(umpteen, "job", "1")
    umpteen("retry", "job")
    umpteen("run", "[ -e here ] || exit {x}", "x=0..3", "--name", "job", "--slots", "1")
    umpteen("run", "[ -e here ] || exit {x}", "x=0..3", "--name", "job", "--rerun", "none")
    umpteen("export", "job", "--csv")
    umpteen("results", "job", "--json")
    umpteen("rm", "job")
    umpteen("rm", "job", "--yes")


def cancelled(umpteen: Copy) -> None:
    umpteen("run", "sleep 6{x}", "x=0..2", "--name", "job", "--slots", "1", "--detach")
    wait_until(lambda: is_told(umpteen, "job", '"running": 1'))
    look(umpteen, "job", "0", "1")
    umpteen("rm", "job", "--yes")
    umpteen("cancel", "job", "x=1", "--json")
    umpteen("cancel", "job")
    wait_until(lambda: not is_told(umpteen, "job", '"state": "running"'))
    look(umpteen, "job", "0", "1", "2")
    umpteen("cancel", "job")
    umpteen("collect", "job")


def batch_files(umpteen: Copy) -> None:
    runs = [{"cmd": f"exit {n}", "remote_output_path": f"out/{n}"} for n in range(3)]
    umpteen.write("b.json", json.dumps({"nprocs": 1, "remote_output_path": "out", "runs": runs}))
    umpteen.write("c.json", json.dumps({"nprocs": 1, "runs": [{"remote_output_path": "a"}]}))
    umpteen.write("d.json", json.dumps({"nprocs": 0, "remote_output_path": "o", "runs": runs}))
    umpteen.write("r.yaml", "spec: {name: a, start_script: '', scale: 1, instance_type: large}\n")
    umpteen("batch", "b.json", "--strict")
    umpteen("batch", "b.json")
    umpteen("summarize-batch", "b.json", "--json")
    umpteen("summarize-batch", "b.json")
    umpteen("split", "r.yaml", "b.json", "chunks")
    umpteen("split", "b.json", "r.yaml", "chunks")
    for name in ("c.json", "d.json", "r.yaml", "gone.json"):
        umpteen("batch", name)
        umpteen("summarize-batch", name)


def on_workers(umpteen: Copy, cluster: DaskCluster) -> None:
    umpteen.write(
        "job.yaml",
        "slots: 1\ntasks:\n- {name: a, command: exit 3}\n- {name: b, command: 'true', after: a}\n"
        "- {name: c, command: 'true', expect: gone, after: {a: any}}\n"
        "- {name: d, command: sleep 60, timeout: 0.1, after: {c: any}}\n",
    )
    flags = ("--executor", "dask", "--scheduler-address", cluster.address)
    umpteen("run", "job.yaml", *flags)
    look(umpteen, "job", "a", "b", "c", "d")
    umpteen("run", "true", "--cpus", "50", "--name", "wide", *flags)


SCENARIOS: list[Scenario] = [
    no_such_thing, missing_file, skipped_tasks, same_names, from_python, ends_by_others,
    killed_runner, runner_that_cannot_go_on, damaged_archive, damaged_store, missing_packages,
    retried, cancelled, batch_files,
]  # fmt: skip


def look(umpteen: Copy, job: str, *tasks: str) -> None:
    """With each verb that tells how it stands."""
    for words in (["status", job], *(["why", job, task] for task in tasks)):
        umpteen(*words)
        umpteen(*words, "--json")


def is_told(umpteen: Copy, job: str, text: str) -> bool:
    return text in umpteen.run_quietly("status", job, "--json")[1]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """For umpteen and for its copy: where the packages are, and who runs its commands."""
    with contextlib.ExitStack() as stack:
        found = []
        for packages in (SOURCE, make_reworded(tmp_path_factory.mktemp("reworded"))):
            server = subprocess.Popen(
                [sys.executable, "-P", "-c", _SERVER, packages],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            found.append((packages, stack.enter_context(server)))
        yield found


@pytest.fixture
def both(servers: Servers, tmp_path: Path) -> Iterator[list[Copy]]:
    """umpteen and its copy, in folders whose names are as long."""
    copies = []
    for place, (packages, server) in zip("ab", servers, strict=True):
        folder, home = tmp_path / place / "work", tmp_path / place / "home"
        folder.mkdir(parents=True)
        home.mkdir()
        copies.append(Copy(folder, home, server, packages))
    yield copies
    for copy in copies:
        for pid in list_processes(copy) if copy.leases.exists() else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_rewording_changes_words_alone(scenario: Scenario, both: list[Copy]) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(scenario, both))
    compare(*both)


def test_rewording_of_what_workers_run_changes_words_alone(
    both: list[Copy], dask_cluster: DaskCluster
) -> None:
    for copy in both:
        on_workers(copy, dask_cluster)
    compare(*both)


def compare(original: Copy, reworded: Copy) -> None:
    """Each is what it says it is, and both have said and left the same."""
    assert "".join(reworded.said) != restore("".join(reworded.said)), "it was not reworded"
    assert "".join(original.said) == restore("".join(original.said)), "it was reworded"
    changes = list(difflib.unified_diff(original.tell(), reworded.tell(), "as it is", "reworded"))
    assert not changes, "\n".join(changes)
