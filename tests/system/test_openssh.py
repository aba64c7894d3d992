"""What ssh is called with, and what it means when it ends."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import pytest

from umpteen.model.variables import SSH
from umpteen.system.openssh import (
    Destination,
    HostError,
    Login,
    parse_destination,
)
from umpteen.system.ssh_command import build_command
from umpteen.system.ssh_failures import explain_failure


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("big", Destination("big")),
        ("me@big", Destination("big", "me")),
        ("me@big.lab.org:2222", Destination("big.lab.org", "me", "2222")),
        ("a@b@c", None),
        ("[::1]:22", Destination("[::1]", "", "22")),
        ("-oProxyCommand=true", None),
        ("-l@host", None),
        ("", None),
        ("a b", None),
        ("host:", None),
        ("host:port", None),
        ("host:٣", None),
        ("DOMAIN\\me@big", Destination("big", "DOMAIN\\me")),
        ("$(touch${IFS}a)", None),
        ("`id`@big", None),
        ("big;id", None),
        ("big\0", None),
        ("big\ud800", None),
    ],
)
def test_destination_is_parsed(text: str, found: Destination | None) -> None:
    assert parse_destination(text) == found
    if found:
        assert str(found) == text


def test_destination_becomes_arguments() -> None:
    assert Destination("[::1]", "me", "22").arguments() == ["-p", "22", "-l", "me", "--", "::1"]


@pytest.mark.parametrize(
    ("said", "reason", "is_transient"),
    [
        ("me@h: Permission denied (publickey).", "it refused the login", False),
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
         "its host key has changed", False),
        ("Host key verification failed.", "its host key is not known here", False),
        ("ssh: Could not resolve hostname h: Name or service not known", "no such host is known",
         True),
        ("ssh: connect to host h port 22: Connection refused", "it refused the connection", True),
        ("ssh: connect to host h port 22: Connection timed out", "it does not answer", True),
        ("kex_exchange_identification: read: Connection reset by peer", "it does not answer", True),
        ("bash: line 1: exec: python3: not found", "it has no python3", False),
        ("SyntaxError: future feature annotations is not defined", "its python3 is too old", False),
        ("ImportError: cannot import name 'TypedDict' from 'typing'", "its python3 is too old",
         False),
        ("/c: line 1: Bad configuration option: nope", "ssh does not take its configuration",
         False),
        ("a banner\nsomething else\n", "something else", False),
        ("", "ssh ended with 255", False),
    ],
)  # fmt: skip
def test_end_of_ssh_is_explained(said: str, reason: str, is_transient: bool) -> None:
    error = explain_failure("h", 255, said)
    assert error.reason == f"cannot reach h: {reason}"
    assert error.is_transient == is_transient
    assert error.hint


def test_ssh_that_was_killed_may_be_tried_again() -> None:
    error = explain_failure("h", -9, "")
    assert error.reason == "cannot reach h: ssh was killed by signal 9"
    assert error.is_transient


def write_config(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str = "") -> None:
    (folder / "config").write_text(f"Host h\n{text}\n")
    monkeypatch.setenv(SSH, f"ssh -F {shlex.quote(str(folder / 'config'))}")


@pytest.mark.skipif(not shutil.which("ssh"), reason="needs ssh")
class TestBuildCommand:
    def test_logins_are_shared_and_silence_ends(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_config(tmp_path, monkeypatch)
        command = " ".join(build_command(Destination("h")))
        assert "ControlMaster=auto" in command
        assert "ServerAliveInterval=15" in command

    def test_what_the_config_says_is_left(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said = f"ControlPath {tmp_path}/own-%C\nServerAliveInterval 7\nConnectTimeout 3"
        write_config(tmp_path, monkeypatch, said)
        assert "-o" not in build_command(Destination("h"))

    def test_login_outlives_the_first_command_where_the_config_shares_logins(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said = f"ControlPath {tmp_path}/own-%C\nControlMaster auto"
        write_config(tmp_path, monkeypatch, said)
        command = build_command(Destination("h"))
        assert "ControlPersist=600" in command
        assert "ControlMaster=auto" not in command
        write_config(tmp_path, monkeypatch, f"{said}\nControlPersist 5")
        assert not any(word.startswith("Control") for word in build_command(Destination("h")))

    def test_options_of_the_results_count_more(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_config(tmp_path, monkeypatch)
        command = build_command(Destination("h"), Login("/keys/a", 2.4, 9))
        assert command[command.index("-i") + 1] == "/keys/a"
        assert {"ConnectTimeout=2", "ServerAliveInterval=3"} <= set(command)

    def test_config_that_is_wrong_is_an_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_config(tmp_path, monkeypatch, "Nonsense yes")
        with pytest.raises(HostError, match="does not take its configuration"):
            build_command(Destination("h"))


def test_machine_without_ssh_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SSH, "no-such-ssh")
    with pytest.raises(HostError, match="there is no no-such-ssh here"):
        build_command(Destination("h"))
