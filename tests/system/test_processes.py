"""Processes: what needs no shell, how ends are heard of, and what start errors say."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import string
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.wait import wait_until
from umpteen.runner.lanes.command import is_plain, resolve_program
from umpteen.runner.launch import build_runner_command
from umpteen.system import children, processes
from umpteen.system import spawn as spawning
from umpteen.system.children import ChildWatcher
from umpteen.system.host import boot_ticks, read_machine
from umpteen.system.processes import end_group, list_marked, list_processes
from umpteen.system.resources import usable_cores
from umpteen.system.spawn import Launch, Spawner

PATH = os.environ["PATH"]
ENV = [f"PATH={PATH}".encode()]


# --- what sh would do ---------------------------------------------------------------------------

# What needs no shell, and now and then what does.
PLAIN = string.ascii_letters + string.digits + "_@%+=:,./-"
WORD = st.text(PLAIN, min_size=1, max_size=8) | st.sampled_from(["~", "#", "a\t", "-n", "--", "!"])


@pytest.fixture(scope="module")
def show(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose program `show` prints its words, one in brackets after another."""
    folder = tmp_path_factory.mktemp("show")
    (folder / "show").write_text("#!/bin/sh\nprintf '[%s]' \"$@\"\n")
    (folder / "show").chmod(0o755)
    return folder


@settings(max_examples=150, deadline=None)
@given(words=st.lists(WORD, max_size=5))
def test_plain_command_run_directly_gets_the_words_that_sh_gives(
    show: Path, words: list[str]
) -> None:
    command = " ".join(["show", *words])
    if not is_plain(command):
        return
    env = {"PATH": f"{show}:{PATH}", "HOME": "/home"}
    program = resolve_program("show", env["PATH"], str(show))
    assert program == str(show / "show")
    by_shell = subprocess.run(
        ["sh", "-c", command], env=env, cwd=show, capture_output=True, check=False
    )
    direct = subprocess.run(command.split(), executable=program, env=env, cwd=show,
                            capture_output=True, check=False)  # fmt: skip
    assert (direct.stdout, direct.returncode) == (by_shell.stdout, by_shell.returncode)


@pytest.mark.parametrize(
    "command",
    ["a | b", "a && b", "a; b", "a &", "a > b", "a < b", "a $B", "a `b`", "a 'b'", 'a "b"', "a *",
     "a ?", "a [b]", "a {b,c}", "~/a", "a ~", "a # b", "!a", "a\nb", "a\\ b", "(a)", " a", "", "é"],
)  # fmt: skip
def test_plain_command_is_none_with_shell_syntax(command: str) -> None:
    assert not is_plain(command)


@pytest.mark.parametrize("command", ["a", "a b", "a\tb  c", "./a --x=1,2:3 a@b 50% +x /y_z.w"])
def test_plain_command_is_one_of_words(command: str) -> None:
    assert is_plain(command)


def list_builtins(shell: str) -> set[str]:
    """The words among those on PATH, and a few more, that a shell does itself."""
    words = {
        name for folder in PATH.split(":") if os.path.isdir(folder) for name in os.listdir(folder)
    }
    words = {word for word in words if word.isalnum()} | {
        "cd",
        "exit",
        "if",
        "eval",
        ":",
        "[",
        "set",
    }
    script = 'for w; do case $(command -v "$w") in /*) ;; ?*) echo "$w";; esac; done'
    found = subprocess.run(
        [shell, "-c", script, shell, *sorted(words)], capture_output=True, text=True, check=True
    )
    return set(found.stdout.split())


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_resolve_program_leaves_to_a_shell_what_it_does_itself(shell: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"needs {shell}")
    builtins = list_builtins(shell)
    assert "cd" in builtins
    taken = {word for word in builtins if resolve_program(word, PATH, None)}
    assert taken == set()


def test_resolve_program_takes_the_first_on_the_path(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "prog").touch(0o755)
    (tmp_path / "a" / "prog").chmod(0o644)
    path = f"relative:{tmp_path}/a:{tmp_path}/b:"
    assert resolve_program("prog", path, None) == f"{tmp_path}/b/prog"


@pytest.mark.parametrize("word", ["A=1", "no-such-program", "./missing", "/usr", "./file", "."])
def test_resolve_program_is_none_where_sh_is_needed(tmp_path: Path, word: str) -> None:
    (tmp_path / "file").touch(0o644)
    assert resolve_program(word, PATH, str(tmp_path)) is None


def test_resolve_program_with_a_slash_is_looked_for_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "prog").touch(0o755)
    assert resolve_program("./prog", PATH, str(tmp_path)) == "./prog"
    assert resolve_program("./prog", PATH, "/") is None


# --- starting ---------------------------------------------------------------------------------


@pytest.fixture(params=["direct", "portable"])
def is_portable(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """Both ways, and afterwards signals as they were."""
    portable = request.param == "portable"
    for module in (spawning, children, processes):
        monkeypatch.setattr(module, "IS_PORTABLE", portable)
    before = signal.getsignal(signal.SIGCHLD)
    yield portable
    signal.signal(signal.SIGCHLD, before)
    signal.set_wakeup_fd(-1)


def spawn(spawner: Spawner, *argv: str, cwd: str | None = None, out: Path | None = None) -> int:
    """The pid of the program started with these words, its outputs in a file."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    outputs = os.open(out or os.devnull, flags)
    try:
        program = shutil.which(argv[0]) or argv[0]
        words = [word.encode() for word in argv]
        return spawner.start(Launch(words, program.encode(), ENV, cwd, outputs, outputs))
    finally:
        os.close(outputs)


@pytest.mark.usefixtures("is_portable")
class TestSpawner:
    def test_start_runs_the_program_in_a_session_of_its_own(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        pid = spawn(Spawner(), "sh", "-c", "pwd; echo $$ $PPID; ps -o sess= -p $$; cat; env",
                    cwd=str(tmp_path), out=out)  # fmt: skip
        assert os.waitpid(pid, 0)[1] == 0
        folder, pids, session, *env = out.read_text().splitlines()
        assert folder == str(tmp_path)
        assert pids == f"{pid} {os.getpid()}"
        assert int(session) == pid
        assert f"PATH={PATH}" in env

    def test_start_of_a_missing_program_says_which(self) -> None:
        with pytest.raises(FileNotFoundError) as caught:
            spawn(Spawner(), "/no/such/program")
        assert os.fsdecode(caught.value.filename) == "/no/such/program"

    def test_start_in_a_missing_folder_says_which(self) -> None:
        with pytest.raises(FileNotFoundError) as caught:
            spawn(Spawner(), "true", cwd="/no/such/folder")
        assert caught.value.filename == "/no/such/folder"

    def test_start_of_what_is_no_program_says_why(self, tmp_path: Path) -> None:
        (tmp_path / "text").write_text("no program")
        with pytest.raises(PermissionError):
            spawn(Spawner(), str(tmp_path / "text"))
        (tmp_path / "text").chmod(0o755)
        with pytest.raises(OSError, match="Exec format") as caught:
            spawn(Spawner(), str(tmp_path / "text"))
        assert caught.value.errno == errno.ENOEXEC

    def test_start_after_an_error_works_again(self) -> None:
        spawner = Spawner()
        for _ in range(3):
            with pytest.raises(FileNotFoundError):
                spawn(spawner, "/no/such/program")
        pid = spawn(spawner, "true")
        assert os.waitpid(pid, 0)[1] == 0

    def test_start_of_a_command_with_a_nul_is_a_value_error(self) -> None:
        with pytest.raises(ValueError, match="null byte"):
            spawn(Spawner(), "echo", "a\0b")

    def test_start_hands_on_no_descriptor(self, tmp_path: Path) -> None:
        out = tmp_path / "out"
        with (tmp_path / "open").open("w") as file:
            os.set_inheritable(file.fileno(), True)
            pid = spawn(Spawner(), "sh", "-c", "ls /proc/$$/fd", out=out)
            os.waitpid(pid, 0)
        assert [int(fd) for fd in out.read_text().split() if int(fd) < 10] == [0, 1, 2]


# --- hearing of ends --------------------------------------------------------------------------


def wait_for(watcher: ChildWatcher, pids: set[int], limit_s: float = 10) -> set[int]:
    """The children of which the watcher told, until all are told of."""
    seen: set[int] = set()
    end = time.monotonic() + limit_s
    while not seen >= pids and time.monotonic() < end:
        seen.update(watcher.wait(1.0)[0])
    return seen


@pytest.mark.usefixtures("is_portable")
class TestChildWatcher:
    def test_wait_tells_of_every_child_and_how_it_ended(self) -> None:
        watcher, spawner = ChildWatcher(), Spawner()
        codes = {spawn(spawner, "sh", "-c", f"exit {code}"): code for code in range(20)}
        for pid in codes:
            watcher.add_child(pid)
        assert wait_for(watcher, set(codes)) == set(codes)
        for pid, code in codes.items():
            status, usage = watcher.reap(pid)
            assert os.waitstatus_to_exitcode(status) == code
            assert usage.ru_maxrss > 0

    def test_wait_tells_of_a_child_that_had_ended_before_it_was_added(self) -> None:
        watcher = ChildWatcher()
        pid = spawn(Spawner(), "true")
        wait_until(lambda: "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text())
        watcher.add_child(pid)
        assert watcher.wait(5.0)[0] == [pid]
        watcher.reap(pid)

    def test_wait_tells_of_a_file_that_can_be_read(self) -> None:
        watcher = ChildWatcher()
        reading, writing = os.pipe()
        watcher.add_file(reading)
        assert watcher.wait(0.01) == ([], [])
        os.write(writing, b"x")
        assert watcher.wait(5.0) == ([], [reading])
        os.read(reading, 1)
        os.close(writing)
        assert watcher.wait(5.0) == ([], [reading])
        watcher.remove_file(reading)
        assert watcher.wait(0.01) == ([], [])
        os.close(reading)

    def test_wait_ends_at_a_signal(self) -> None:
        watcher = ChildWatcher()
        before = signal.signal(signal.SIGUSR1, lambda *_: None)
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        began = time.monotonic()
        assert watcher.wait(20.0) == ([], [])
        assert time.monotonic() - began < 10
        timer.join()
        signal.signal(signal.SIGUSR1, before)

    def test_wait_without_an_end_is_woken_by_a_child(self) -> None:
        watcher = ChildWatcher()
        pid = spawn(Spawner(), "sleep", "0.1")
        watcher.add_child(pid)
        assert wait_for(watcher, {pid}) == {pid}
        watcher.reap(pid)


# --- looking and ending -----------------------------------------------------------------------


@pytest.mark.usefixtures("is_portable")
def test_list_processes_knows_parents_and_sessions() -> None:
    pid = spawn(Spawner(), "sleep", "600")
    (entry,) = [entry for entry in list_processes() if entry.pid == pid]
    assert (entry.parent, entry.session) == (os.getpid(), pid)
    assert end_group(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert not end_group(pid, signal.SIGKILL)


@pytest.mark.usefixtures("is_portable")
def test_list_processes_leaves_out_zombies_and_itself() -> None:
    def list_children() -> set[int]:
        return {entry.pid for entry in list_processes() if entry.parent == os.getpid()}

    earlier = list_children()  # servers of other tests
    pid = spawn(Spawner(), "true")
    wait_until(lambda: "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text())
    assert list_children() <= earlier
    os.waitpid(pid, 0)


def test_list_processes_start_is_on_the_clock_of_boot_ticks() -> None:
    before = boot_ticks()
    pid = spawn(Spawner(), "sleep", "600")
    (entry,) = [entry for entry in list_processes() if entry.pid == pid]
    end_group(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert before - 2 <= entry.start_ticks <= boot_ticks() + 2


def test_list_marked_finds_by_variable_and_value_alone() -> None:
    marks = [{"MARK": "x1"}, {"MARK": "x1", "ALSO": "2"}, {"MARK": "x11"}, {"OTHER": "x1"}]
    started = [subprocess.Popen(["/bin/sleep", "600"], env=mark) for mark in marks]
    wait_until(lambda: len(list_marked("MARK", "x1")) >= 2)
    found = set(list_marked("MARK", "x1")), list_marked("MARK", "x1", {"ALSO": "2"})
    for child in started:
        child.kill()
        child.wait()
    assert found == ({started[0].pid, started[1].pid}, [started[1].pid])


def test_machine_is_the_same_each_time() -> None:
    assert read_machine() == read_machine()
    assert all(read_machine())


def test_usable_cores_respect_the_affinity() -> None:
    program = (
        "import os, sys; os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]}); "
        "from umpteen.system.resources import usable_cores; print(usable_cores())"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert shown.stdout == b"1\n"
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


def test_runner_command_needs_no_site_packages(tmp_path: Path) -> None:
    shown = subprocess.run(
        [*build_runner_command(), "--help"], cwd=tmp_path, env={}, capture_output=True, check=False
    )
    assert shown.returncode == 0, shown.stderr
    assert b"umpteen batch" in shown.stdout
