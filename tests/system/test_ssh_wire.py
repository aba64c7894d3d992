"""What a host may send through the pipe, and what becomes of it: a fake agent in place of ssh."""

from __future__ import annotations

import resource
import shlex
import sys
import time
from pathlib import Path

import pytest

from umpteen.model.variables import SSH
from umpteen.system import openssh, ssh_answers
from umpteen.system.openssh import Destination, HostConnection, HostError, NonsenseError

_FAKE = """
import json, os, sys, time
if "-G" in sys.argv or "-O" in sys.argv or "exit 0" in sys.argv:
    LOGIN
    sys.exit(0)
source, out = sys.stdin.buffer, sys.stdout.buffer
def say(text):
    out.write(text if isinstance(text, bytes) else text.encode())
    out.flush()
def answer(number, size=0, content=b"", **more):
    say(json.dumps({"id": number, "size": size, **more}) + "\\n")
    say(content)
def hello():
    say('umpteen-agent {"home": "/"}\\n')
source.read(int(source.readline()))
try:
    AGENT
except BrokenPipeError:
    os._exit(0)
source.read()
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the program is that umpteen takes for ssh; write it by `have`."""
    script = tmp_path / "ssh.py"
    monkeypatch.setenv(SSH, shlex.join([sys.executable, str(script)]))
    return script


def have(script: Path, agent: str, login: str = "pass") -> None:
    """Have a host's agent be this program."""
    indented = agent.replace("\n", "\n    ")
    script.write_text(_FAKE.replace("AGENT", indented).replace("LOGIN", login))


def read_memory() -> int:
    """Bytes that this process has ever used at once."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


_ASKED = "hello()\nsource.readline()\n"


@pytest.mark.parametrize(
    "agent",
    [
        "say('[' * 100_000 + chr(10))",
        "say('garbage\\n')",
        "say(os.urandom(1 << 16).replace(b'\\n', b'') + b'\\n')",
        "answer(2)",
        "answer(-1)",
        "answer(True)",
        "answer(1, -1)",
        "answer(1, 1 << 23 | 1)",
        "answer(1, errno=1 << 40, reason='')",
        "answer(1, errno=5, reason=['a'])",
        "say('{\"id\": 1, \"size\": 1' + '0' * 5000 + '}\\n')",
        "while True: say('x' * (1 << 20))",
    ],
)
def test_answer_that_cannot_be_is_named(
    fake: Path, monkeypatch: pytest.MonkeyPatch, agent: str
) -> None:
    monkeypatch.setattr(ssh_answers, "_LINE_BYTES", 1 << 22)
    have(fake, _ASKED + agent)
    connection = HostConnection(Destination("h"))
    with pytest.raises(NonsenseError, match="h answers what cannot be"):
        connection.ask("measure", path="/").result(60)
    with pytest.raises(NonsenseError):
        connection.ask("measure", path="/")


def test_second_answer_ends_the_connection(fake: Path) -> None:
    have(fake, _ASKED + "answer(1)\nsource.readline()\nanswer(1)")
    connection = HostConnection(Destination("h"))
    connection.ask("measure", path="/").result(60)
    with pytest.raises(NonsenseError, match="was not asked"):
        connection.ask("measure", path="/").result(60)


def test_flood_of_a_line_takes_no_more_memory_than_a_line_may_have(fake: Path) -> None:
    have(fake, _ASKED + "while True: say(b'x' * (1 << 20))")
    connection = HostConnection(Destination("h"))
    before = read_memory()
    with pytest.raises(NonsenseError, match="without an end"):
        connection.ask("bring").result(120)
    assert read_memory() - before < 4 * ssh_answers._LINE_BYTES


def test_long_line_is_taken_where_such_a_one_was_asked_for(
    fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh_answers, "_LINE_BYTES", 1 << 16)
    have(fake, _ASKED + "answer(1, found='x' * (1 << 17))\nsource.readline()\nanswer(2)")
    connection = HostConnection(Destination("h"))
    assert len(connection.ask("walk", path="/").result(60).found) == 1 << 17
    connection.ask("measure", path="/").result(60)
    have(fake, _ASKED + "answer(1, found='x' * (1 << 17))")
    with pytest.raises(NonsenseError, match="without an end"):
        HostConnection(Destination("h")).ask("measure", path="/").result(60)


@pytest.mark.parametrize(
    "agent", ["answer(1, 100, b'x' * 99)\nos._exit(0)", "say('{')\nos._exit(0)"]
)
def test_answer_that_is_cut_off_is_a_loss(fake: Path, agent: str) -> None:
    have(fake, _ASKED + agent)
    with pytest.raises(HostError, match="was lost") as caught:
        HostConnection(Destination("h")).ask("measure", path="/").result(60)
    assert caught.value.is_transient


def test_error_of_a_host_is_shown_without_what_moves_a_terminal(fake: Path) -> None:
    have(fake, _ASKED + "answer(1, errno=2, reason='\\x1b[2Jgone' + 'x' * 10_000)")
    with pytest.raises(FileNotFoundError) as caught:
        HostConnection(Destination("h")).ask("measure", path="/").result(60)
    assert str(caught.value.strerror).startswith(" [2Jgonexx")
    assert len(str(caught.value.strerror)) == 1000


@pytest.mark.parametrize(
    "agent",
    [
        "say('umpteen-agent ' + '[' * 100_000 + '\\n')",
        "say('umpteen-agent []\\n')",
        "while True: say('banner\\n' * 1000)",
        "while True: say('x' * (1 << 16))",
        "os._exit(3)",
    ],
)
def test_greeting_that_cannot_be_is_an_error(fake: Path, agent: str) -> None:
    have(fake, agent)
    with pytest.raises(HostError):
        HostConnection(Destination("h"))


def test_host_that_greets_nobody_is_given_up(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openssh, "_HELLO_S", 0.5)
    have(fake, "source.read()")
    with pytest.raises(HostError, match="does not answer"):
        HostConnection(Destination("h"))


def test_host_that_takes_no_message_is_given_up(
    fake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openssh, "_SEND_S", 0.5)
    monkeypatch.setattr(openssh, "_WATCH_S", 0.1)
    have(fake, "hello()\ntime.sleep(600)")
    connection = HostConnection(Destination("h"))
    with pytest.raises(HostError, match="was lost"):
        connection.ask("write_part", b"x" * (1 << 22)).result(60)


_FLOOD = "while True: os.write(2, b'x' * (1 << 20))"


@pytest.mark.parametrize(("agent", "login"), [(f"hello()\n{_FLOOD}", "pass"), ("pass", _FLOOD)])
def test_flood_on_stderr_fills_no_disk(
    fake: Path, monkeypatch: pytest.MonkeyPatch, agent: str, login: str
) -> None:
    monkeypatch.setattr(openssh, "_WATCH_S", 0.05)
    monkeypatch.setattr(openssh, "_SAID_MOST", 1 << 20)
    have(
        fake,
        agent,
        login.replace("while", "\n    while '-G' not in sys.argv and").replace("and True", "True"),
    )
    with pytest.raises(HostError):
        HostConnection(Destination("h")).ask("measure", path="/").result(60)


def test_flood_of_answers_that_nobody_asked_for_ends(fake: Path) -> None:
    have(fake, "hello()\nwhile True: answer(7, 1 << 20, b'x' * (1 << 20))")
    connection = HostConnection(Destination("h"))
    limit_s = time.monotonic() + 60
    while not connection.is_lost:
        assert time.monotonic() < limit_s
        time.sleep(0.01)
    with pytest.raises(NonsenseError):
        connection.ask("measure", path="/")
