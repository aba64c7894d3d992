"""Stores in which one thing is not as it must be, looked at with every verb that looks.

Whatever that is, each verb ends soon and in little memory, with an answer or an error that was
foreseen.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.store import put_batch, put_hand_in, put_start
from umpteen.store.directory import DirectoryStore
from umpteen.store.layout import CANCEL, RecordsKey, handles_key, running_key
from umpteen.store.records import build_line

VERBS = [
    ["ls"], ["ls", "--json"], ["status", "JOB"], ["status", "JOB", "--json"], ["why", "JOB", "0"],
    ["why", "JOB", "3"], ["logs", "JOB", "0"], ["logs", "JOB", "2", "--json"], ["export", "JOB"],
    ["results", "JOB"], ["retry", "JOB", "--dry-run"],
]  # fmt: skip
MOST_S, MOST_BYTES = 20, 2 << 30

# Answers a line with how each verb ended that it is asked for.
LOOKER = f"""
import contextlib, io, json, os, resource, signal, sys
from umpteen.cli.group import run_program
resource.setrlimit(resource.RLIMIT_AS, ({MOST_BYTES}, {MOST_BYTES}))
answers = os.fdopen(os.dup(1), "w")
def end(*_):
    raise SystemExit("it took too long")
signal.signal(signal.SIGALRM, end)
for line in sys.stdin:
    told = json.loads(line)
    os.chdir(told["folder"])
    ends = []
    for verb in told["verbs"]:
        with open("printed", "w+") as file:
            os.dup2(file.fileno(), 1), os.dup2(file.fileno(), 2)
            signal.alarm({MOST_S})
            try:
                code = run_program(verb)
            except BaseException as error:
                code = repr(error)
            signal.alarm(0)
            sys.stdout.flush(), sys.stderr.flush()
            file.seek(0)
            ends.append([code, file.read()])
    answers.write(json.dumps(ends) + "\\n")
    answers.flush()
"""

Ends = list[tuple[int | str, str]]
NASTY: st.SearchStrategy[Any] = st.sampled_from(
    [
        None, True, -1, 0, 99_999, 10**12, 10**40, 1e300, 0.5, "", "x", "²", "a\0b", "../x", "/etc",
        "0-99999999999", "2-0", "\x1b]0;x\x07", "sftp://127.0.0.1:1/x", "nosuch://x", "this:x",
        "a" * 300, "succeeded", [], {}, [[]], [5], {"a": {}}, float("nan"), float("inf"),
    ]
)  # fmt: skip
NASTY_LINES = st.sampled_from(
    [b"", b"{", b"[]", b"\xff\n", b"\0", b"{}\n", b"[" * 100_000, b'{"a":' * 50_000, b"1" * 5000]
)


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], Ends]]:
    """A process that looks at the job in a folder's umpteen-results, and tells how that ended."""
    home = tmp_path_factory.mktemp("home")
    process = subprocess.Popen(
        [sys.executable, "-c", LOOKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"HOME": str(home), "PATH": "/usr/bin:/bin", "UMPTEEN_LEASES": str(home / "leases")},
    )
    assert process.stdin
    assert process.stdout

    def ask(folder: Path) -> Ends:
        verbs = [[word.replace("JOB", "umpteen-results/job") for word in verb] for verb in VERBS]
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps({"folder": str(folder), "verbs": verbs}) + "\n")
        process.stdin.flush()
        ends: Ends = json.loads(process.stdout.readline())
        return ends

    yield ask
    process.stdin.close()
    assert process.wait() == 0
    process.stdout.close()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a job that has all kinds of files: two hand-ins, and four starts."""
    folder = tmp_path_factory.mktemp("sound")
    store = DirectoryStore(str(folder / "umpteen-results/job"))
    lines: list[dict[str, Any]] = [
        {"command": "true", "name": "a/0", "env": {"A": "1"}, "parameters": {"n": "1"}},
        {"command": ["echo", "1"], "tags": ["t"], "timeout_s": 5.0},
        {"command": "x", "terms": {"after": [["a/0", "succeeded"]], "cpus": 1}},
    ]
    store_settings = {"slots": 2, "grace_s": 1.0, "cwd": "/", "synced": [], "canary": 0}
    put_hand_in(store, 1, lines, {"1": "0-1", "2": "2"}, settings=store_settings, mark="0a")
    store.create(handles_key(1), b'{"1": "m/b/0a", "2": "m/b/0a"}')
    put_batch(store, "1", "0-1", ["a/0", "1"])
    put_batch(store, "2", "2", ["2"])
    record = {"digest": "d", "attempt": 1, "start_s": 1.0, "end_s": 2.0, "seconds": 1.0}
    ended = {"event": "end", "left": 0, "time": 3.0, "seconds": 2.0}
    put_start(
        store, "1",
        [
            {"task": 0, "state": "succeeded", "exit_code": 0, **record},
            {"task": 1, "state": "failed", "exit_code": 1, "reason": "", **record},
            {**ended, "states": {"succeeded": "0", "failed": "1"}},
        ],
    )  # fmt: skip
    put_start(store, "2", [{"task": 2, "state": "waiting", "reason": "interrupted", **record}])
    store.create(
        running_key("2", RecordsKey(1, f"{1:012x}")),
        b'{"running": [[2, 0, 1.5, 7]], "trouble": ""}',
    )
    changed: list[dict[str, Any]] = [
        {"command": "y", "index": 1},
        {"command": "", "index": 2, "dropped": True},
    ]
    more = [*changed, {"command": "z", "output": f"{store.address}/elsewhere"}]
    put_hand_in(store, 2, more, {"3": "1,3"}, changed="1", dropped="2", executor="")
    put_batch(store, "3", "1,3", ["1", "elsewhere"])
    store.create(CANCEL, b'{"upto": 0, "tasks": {"1": 3}}')
    for name in ("a/0", "elsewhere"):
        results = Path(store.path(name)) / "results"
        results.mkdir(parents=True)
        (results / "metrics.json").write_text('{"loss": 0.5}')
        (results.parent / "stdout").write_text("out\n")
    return folder


def list_files(folder: Path) -> list[str]:
    """The files of the job that are of umpteen's own form."""
    own = folder / "umpteen-results/job/.umpteen"
    return sorted(str(p.relative_to(folder)) for p in own.rglob("*") if p.is_file())


def list_places(content: Any) -> list[tuple[Any, ...]]:
    """The way to each value in a JSON document."""
    items: Any = ()
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, list):
        items = enumerate(content)
    return [(), *((key, *rest) for key, value in items for rest in list_places(value))]


def put_at(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    """The document with another value at a place."""
    if not place:
        return value
    content[place[0]] = put_at(content[place[0]], place[1:], value)
    return content


def spoil(content: bytes, data: st.DataObject) -> bytes:
    """The file with one value, or one line, that it should not have."""
    lines = content.split(b"\n")
    number = data.draw(st.integers(0, max(0, len(lines) - 2)), label="line")
    if data.draw(st.integers(0, 4), label="how") == 0:
        lines[number] = data.draw(NASTY_LINES)
    else:
        document = json.loads(lines[number])
        place = data.draw(st.sampled_from(list_places(document)), label="place")
        lines[number] = build_line(put_at(document, place, data.draw(NASTY)))[:-1]
    return b"\n".join(lines)


def check(ends: Ends) -> None:
    """Each verb ended with a code of ours, and said nothing of what was not foreseen."""
    for verb, (code, printed) in zip(VERBS, ends, strict=True):
        assert code in (0, 1, 2, 3), (verb, code, printed[-2000:])
        assert "unexpected" not in printed, (verb, printed[-2000:])
        assert "MemoryError" not in printed, (verb, printed[-2000:])


def test_damaged_nothing_is_sound(look: Callable[[Path], Ends], sound: Path) -> None:
    ends = look(sound)
    check(ends)
    assert not [printed for _, printed in ends if "damaged" in printed]
    assert ends[2][1].startswith("job: unfinished, 1 done · 2 waiting")
    assert "loss" in ends[8][1]


@given(st.data())
@settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_damaged_one_thing_is_foreseen(
    look: Callable[[Path], Ends],
    sound: Path,
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    shutil.copytree(sound, folder, dirs_exist_ok=True)
    file = folder / data.draw(st.sampled_from(list_files(sound)), label="file")
    file.write_bytes(spoil(file.read_bytes(), data))
    check(look(folder))
    shutil.rmtree(folder)


@pytest.mark.parametrize("number", range(8))
def test_damaged_file_that_is_another_is_foreseen(
    look: Callable[[Path], Ends], sound: Path, tmp_path: Path, number: int
) -> None:
    names = list_files(sound)
    for place, name in enumerate(names):
        folder = tmp_path / str(place)
        shutil.copytree(sound, folder)
        other = sound / names[(place + number + 1) % len(names)]
        shutil.copy(other, folder / name)
        check(look(folder))
        shutil.rmtree(folder)


def test_damaged_file_that_is_missing_is_foreseen(
    look: Callable[[Path], Ends], sound: Path, tmp_path: Path
) -> None:
    for place, name in enumerate(list_files(sound)):
        folder = tmp_path / str(place)
        shutil.copytree(sound, folder)
        (folder / name).unlink()
        check(look(folder))
