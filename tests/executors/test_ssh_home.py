"""What a host may say that it has, and what becomes of the job's folder then."""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.store import put_batch, read_tree
from umpteen.executors.ssh import home as home_module
from umpteen.executors.ssh.home import Home
from umpteen.model.agent_messages import (
    HostFile,
    News,
    RecordsPart,
    TaskOutputs,
)
from umpteen.model.forms import FormError
from umpteen.model.record import Record
from umpteen.store.directory import DirectoryStore
from umpteen.system.plain_files import remove_below

TOKEN = "aa"
FILE, LINK = stat.S_IFREG | 0o644, stat.S_IFLNK | 0o777


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    store = DirectoryStore(str(tmp_path / "job"))
    put_batch(store, "1", "0-2", ["a", "b", "deep/c"])
    put_batch(store, "2", "3", ["d"])
    return store


@pytest.fixture
def home(store: DirectoryStore) -> Home:
    return Home(store, "head1")


def top(home: Home) -> Path:
    return Path(home.store.address)


def refuse_fetch(source: str, size: int, path: str) -> None:
    raise AssertionError(source, size, path)


def line(task: int = 0, state: str = "succeeded", **more: Any) -> bytes:
    record = Record(task, "", 1, state, exit_code=0)._replace(**more)
    return record.to_line().encode() + b"\n"


def outputs(
    files: Sequence[tuple[str, int, bytes | str]], task: int = 0, folder: str = "a"
) -> TaskOutputs:
    """Files by path, mode, and content or what they point to."""
    found = [
        HostFile(path, mode, len(content), "", is_sent=True)
        if isinstance(content, bytes)
        else HostFile(path, mode, 0, content, is_sent=False)
        for path, mode, content in files
    ]
    return TaskOutputs(task, folder, found, [c for _, _, c in files if isinstance(c, bytes)])


PLAIN: list[tuple[str, int, bytes | str]] = [
    ("stdout", FILE, b"out\n"),
    ("status_code", FILE, b"0"),
    ("results/x", FILE, b"x"),
]


def part(lines: bytes, *found: TaskOutputs, offset: int = 0, name: str = "1/1-aa") -> RecordsPart:
    return RecordsPart(f"{name}.jsonl", offset, lines, found)


def read_records(home: Home, name: str = "1/1-aa") -> bytes:
    path = top(home) / f".umpteen/records/{name}.jsonl"
    return path.read_bytes() if path.exists() else b""


def read_task(home: Home, name: str = "a") -> dict[str, bytes]:
    return read_tree(top(home) / name)


def test_files_and_lines_come_home(home: Home) -> None:
    home.add(part(line(), outputs(PLAIN)), refuse_fetch, "h1")
    assert read_task(home) == {"stdout": b"out\n", "status_code": b"0", "results/x": b"x"}
    assert read_records(home) == line()
    assert home.find_batch("1").left == 2


REFUSED: dict[str, tuple[bytes, list[TaskOutputs]]] = {
    "another task's folder": (line(), [outputs(PLAIN, folder="b")]),
    "its own, of another name": (line(), [outputs(PLAIN, folder="a/attempts/1-bb")]),
    "below its own": (line(), [outputs(PLAIN, folder="a/results")]),
    "umpteen's own": (line(), [outputs(PLAIN, folder=".umpteen/records")]),
    "an attempt of another runner": (
        line(outputs="attempts/1-bb"), [outputs(PLAIN, folder="a/attempts/1-bb")],
    ),
    "a file and a folder of one name": (
        line(), [outputs([("results", FILE, b""), ("results/x", FILE, b"x")])],
    ),
    "a folder and a file of one name": (
        line(), [outputs([("results/x", FILE, b"x"), ("results", FILE, b"")])],
    ),
    "two files of one name": (line(), [outputs([("x", FILE, b"1"), ("x", FILE, b"2")])]),
    "a file and a link of one name": (line(), [outputs([("x", FILE, b"1"), ("x", LINK, "/etc")])]),
    "a file below a link": (
        line(), [outputs([("results/x", FILE, b"1"), ("results", LINK, "/etc")])],
    ),
    "too deep": (line(), [outputs([("d/" * 101 + "x", FILE, b"1")])]),
    "a task of another batch": (line(3), [outputs(PLAIN, 3, "d")]),
    "a task of none": (line(99), [outputs(PLAIN, 99, "a")]),
    "a task of another batch behind another end of a line": (
        line(3).replace(b",", b",\r", 1), [outputs(PLAIN, 3, "d")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_host_that_means_harm_is_refused_and_leaves_nothing(home: Home, what: str) -> None:
    lines, found = REFUSED[what]
    before = read_tree(top(home).parent)
    with pytest.raises(FormError):
        home.add(part(lines, *found), refuse_fetch, "h1")
    home.finish()
    assert read_tree(top(home).parent) == before


def test_offset_that_was_not_asked_for_is_refused(home: Home) -> None:
    home.add(part(line()), refuse_fetch, "h1")
    for offset in (0, 1, len(line()) + 1):
        with pytest.raises(FormError):
            home.add(part(line(1), offset=offset), refuse_fetch, "h1")
    assert read_records(home) == line()


def test_runner_of_another_host_is_refused(home: Home) -> None:
    home.add(part(line()), refuse_fetch, "h1")
    with pytest.raises(FormError, match="another host's"):
        home.add(part(line(1), offset=len(line())), refuse_fetch, "h2")
    with pytest.raises(FormError, match="another host's"):
        home.show_running(News([], [], {"1/1-aa.json": 1}, []), [], "h2")
    home.add(part(line(1), offset=len(line())), refuse_fetch, "h1")
    assert read_records(home) == line() + line(1)


def test_host_has_no_more_runners_than_can_be(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home_module, "_MOST_RUNNERS", 3)
    for number in range(3):
        home.add(part(line(0), name=f"1/{number}-{number}"), refuse_fetch, "h1")
    with pytest.raises(FormError, match="too many"):
        home.add(part(line(0), name="1/3-3"), refuse_fetch, "h1")
    home.add(part(line(0), name="1/4-4"), refuse_fetch, "h2")


def test_more_records_files_than_can_be_open_come_home(home: Home) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(50):
        home.add(part(line(0), name=f"1/{number}-{number}"), refuse_fetch, "h1")
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_modes_give_no_rights_that_a_file_here_should_not_have(home: Home) -> None:
    files = [("results/x", stat.S_IFREG | 0o7777, b"x"), ("stdout", stat.S_IFREG, b"")]
    home.add(part(line(), outputs(files)), refuse_fetch, "h1")
    modes = [stat.S_IMODE((top(home) / "a" / name).stat().st_mode) for name, _, _ in files]
    assert modes[0] & ~0o755 == 0
    assert modes[1] == 0o600


def test_link_of_an_earlier_attempt_is_not_followed(home: Home, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    home.add(
        part(line(0, "failed"), outputs([("results", LINK, str(victim)), ("stdout", FILE, b"1")])),
        refuse_fetch, "h1",
    )  # fmt: skip
    home.add(part(line(), outputs(PLAIN), name="1/2-bb"), refuse_fetch, "h2")
    assert list(victim.iterdir()) == []
    assert os.readlink(top(home) / "a/attempts/1-aa/results") == str(victim)
    assert (top(home) / "a/results/x").read_bytes() == b"x"


def test_folder_that_is_a_link_here_is_refused(home: Home, tmp_path: Path) -> None:
    (top(home) / "deep").symlink_to(tmp_path)
    with pytest.raises(OSError, match="link"):
        home.add(part(line(2), outputs(PLAIN, 2, "deep/c")), refuse_fetch, "h1")
    assert not (tmp_path / "c").exists()
    assert read_records(home) == b""


def test_earlier_attempt_is_set_aside(home: Home) -> None:
    home.add(part(line(0, "failed"), outputs([("stdout", FILE, b"old")])), refuse_fetch, "h1")
    again = [*PLAIN, ("attempts/1-aa/stdout", FILE, b"forged"), ("attempts/1-cc/x", FILE, b"own")]
    home.add(part(line(attempt=2), outputs(again), name="1/2-bb"), refuse_fetch, "h1")
    assert read_task(home) == {
        "stdout": b"out\n", "status_code": b"0", "results/x": b"x",
        "attempts/1-aa/stdout": b"old", "attempts/1-cc/x": b"own",
    }  # fmt: skip


def test_second_success_changes_nothing(home: Home) -> None:
    home.add(part(line(), outputs(PLAIN)), refuse_fetch, "h1")
    other = [("stdout", FILE, b"other"), ("status_code", FILE, b"0")]
    outcomes = home.add(part(line(), outputs(other), name="1/2-bb"), refuse_fetch, "h2")
    assert outcomes == []
    assert read_records(home, "1/2-bb").strip() == b""
    assert read_task(home)["stdout"] == b"out\n"


def test_file_that_cannot_be_fetched_leaves_nothing_aside(home: Home) -> None:
    def fail(source: str, size: int, path: str) -> None:
        Path(path).write_bytes(b"half")
        del source, size
        raise OSError(28, "No space left on device")

    large = TaskOutputs(0, "a", [HostFile("results/x", FILE, 1 << 60, "", is_sent=False)])
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            home.add(part(line(), large), fail, "h1")
    assert [path for path in read_tree(top(home)) if "batches" not in path] == []


def test_two_large_files_of_one_name_are_refused(home: Home) -> None:
    def fetch(source: str, size: int, path: str) -> None:
        del source, size
        with open(path, "xb"):
            pass

    files = [HostFile("x", FILE, 0, "", is_sent=False)] * 2
    with pytest.raises(FormError, match="one name"):
        home.add(part(line(), TaskOutputs(0, "a", files)), fetch, "h1")


def test_large_file_that_is_gone_twice_is_left_out(home: Home) -> None:
    def fail(source: str, size: int, path: str) -> None:
        del size, path
        raise FileNotFoundError(2, "gone", source)

    large = TaskOutputs(0, "a", [HostFile("results/x", FILE, 5, "", is_sent=False)])
    with pytest.raises(FileNotFoundError):
        home.add(part(line(), large), fail, "h1")
    home.add(part(line(), large), fail, "h1")
    assert read_records(home) == line()


MOVED = b'{"event":"moved","moved":0}\n'
FENCED = line(outputs="attempts/1-aa")


def test_files_are_moved_when_the_host_has_moved_them(home: Home) -> None:
    home.add(part(FENCED, outputs(PLAIN, folder="a/attempts/1-aa")), refuse_fetch, "h1")
    assert (top(home) / "a/attempts/1-aa/stdout").read_bytes() == b"out\n"
    home.add(part(MOVED, offset=len(FENCED)), refuse_fetch, "h1")
    assert read_task(home) == {"stdout": b"out\n", "status_code": b"0", "results/x": b"x"}


def test_files_that_were_moved_before_they_came_stay(home: Home) -> None:
    home.add(part(FENCED, outputs(PLAIN)), refuse_fetch, "h1")
    home.add(part(MOVED, offset=len(FENCED)), refuse_fetch, "h1")
    assert read_task(home) == {"stdout": b"out\n", "status_code": b"0", "results/x": b"x"}


def test_threads_of_hosts_share_one_batch(home: Home) -> None:
    found, gate = [], threading.Barrier(8)

    def look() -> None:
        gate.wait()
        found.append(home.find_batch("1"))

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(batch) for batch in found}) == 1


# --- a head that is killed ----------------------------------------------------------------------


class Killed(BaseException):
    """As kill -9: nothing after it is done."""


_STEPS = ("rename", "write", "mkdir", "symlink", "open", "ftruncate", "replace", "link", "rmdir")


def kill_at(monkeypatch: pytest.MonkeyPatch, number: int) -> Callable[[], bool]:
    """Have the step of that number, and all after it, not be done; whether it came to that."""
    count = 0

    def wrap(real: Callable[..., Any], name: str) -> Callable[..., Any]:
        def step(*arguments: Any, **more: Any) -> Any:
            nonlocal count
            if name == "open" and not arguments[1] & os.O_CREAT:
                return real(*arguments, **more)
            count += 1
            if count == number and name == "write":
                real(arguments[0], arguments[1][: len(arguments[1]) // 2])  # by half
            if count >= number:
                raise Killed
            return real(*arguments, **more)

        return step

    for name in _STEPS:
        monkeypatch.setattr(os, name, wrap(getattr(os, name), name))
    name = f"{home_module.__name__}.remove_below"
    monkeypatch.setattr(name, wrap(remove_below, "remove"))
    return lambda: count >= number


def build_parts(case: str) -> list[RecordsPart]:
    """What a host has to bring, in the order in which it comes."""
    earlier = part(
        line(0, "failed"), outputs([("stdout", FILE, b"old"), ("results/y", FILE, b"y")])
    )
    links = [*PLAIN, ("results/l", LINK, "x")]
    if case == "new":
        return [part(line(), outputs(links))]
    if case == "again":
        return [earlier, part(line(attempt=2), outputs(links), name="1/2-bb")]
    fenced = outputs(links, folder="a/attempts/1-bb")
    first = line(outputs="attempts/1-bb")
    return [
        earlier,
        part(first, fenced, name="1/2-bb"),
        part(MOVED, name="1/2-bb", offset=len(first)),
    ]


def bring(home: Home, parts: Sequence[RecordsPart]) -> None:
    """All that is not home yet, as a host answers to the offsets that are asked for."""
    for each in parts:
        known = home.read_offsets("1").get(each.name, 0)
        if known < each.offset + len(each.lines):
            assert known == each.offset
            home.add(each, refuse_fetch, "h1")


def check_seen(home: Home) -> None:
    """What a reader sees of a task at any time: whole files alone."""
    whole = {"stdout": {b"out\n", b"old"}, "status_code": {b"0"}, "results/x": {b"x"}}
    for path, content in read_task(home).items():
        assert content in whole.get(path.rpartition("/")[2], {content}) or "results" in path
        if path in whole:
            assert content in whole[path], path
    success = [json.loads(text) for name in ("1/1-aa", "1/2-bb")
               for text in read_records(home, name).split(b"\n")[:-1]
               if b'"succeeded"' in text]  # fmt: skip
    for record in success:  # what a record vouches for is there, in its place or on the way to it
        places = {record.get("outputs", ""), ""}
        for name, contents in whole.items():
            found = [top(home) / "a" / place / name for place in places]
            assert any(p.exists() and p.read_bytes() in contents - {b"old"} for p in found), name


@pytest.mark.parametrize("case", ["new", "again", "fenced"])
def test_head_that_was_killed_at_any_step_is_followed_by_one_that_brings_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    expected: dict[str, bytes] = {}
    for number in range(200):  # 0: it is not killed
        store = DirectoryStore(str(tmp_path / f"job{number}"))
        put_batch(store, "1", "0-2", ["a", "b", "deep/c"])
        first = Home(store, "head1")
        is_killed = False
        if number:
            with monkeypatch.context() as patch:
                was_killed = kill_at(patch, number)
                try:
                    bring(first, build_parts(case))
                except Killed:
                    is_killed = True
                assert is_killed == was_killed()
            check_seen(first)
        second = Home(store, "head2")
        bring(second, build_parts(case))
        second.finish()
        check_seen(second)
        found = {
            path: content
            for path, content in read_tree(top(second)).items()
            if not path.startswith((".umpteen/batches", ".umpteen/scratch"))
        }
        expected = expected or found
        assert found == expected, number
        if number and not is_killed:
            assert number > 10
            return
    raise AssertionError("it never comes to its end")
