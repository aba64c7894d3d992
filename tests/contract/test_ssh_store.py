"""Results behind OpenSSH: its login, and what happens when it fails or is lost."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.test_store_faults import use_everything
from tests.support.command import Umpteen
from tests.support.proxy import FaultProxy
from tests.support.sftp import Ssh
from tests.support.wait import wait_until
from umpteen.errors import SettingsError, StoreError
from umpteen.model.variables import RUNNER, SSH
from umpteen.store import remote
from umpteen.store.address import open_store
from umpteen.store.backends import ssh as ssh_backend
from umpteen.system import openssh
from umpteen.system.background import BackgroundCall
from umpteen.system.openssh import HostConnection, HostError
from umpteen.system.processes import is_marked_otherwise, list_children, list_marked


def use_config(ssh: Ssh, monkeypatch: pytest.MonkeyPatch, folder: Path, **changes: str) -> None:
    """Have ssh use the tests' config with other values for some keywords."""
    lines = (ssh.sftp.keys / "config").read_text().splitlines()
    kept = [line for line in lines if line.partition(" ")[0] not in changes]
    added = [f"{keyword} {value}" for keyword, value in changes.items()]
    config = folder / "ssh_config"
    config.write_text("\n".join([*kept, *added]) + "\n")
    monkeypatch.setenv(SSH, f"ssh -F {config}")


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A folder for the sockets of logins: their paths have at most about a hundred bytes."""
    with tempfile.TemporaryDirectory(prefix="s", dir="/tmp") as folder:
        yield Path(folder)


def count_logins(ssh: Ssh) -> int:
    return (ssh.sftp.keys / "sshd.out").read_text().count("Accepted publickey")


def test_connection_that_was_lost_is_made_again(
    ssh: Ssh, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with FaultProxy(ssh.sftp.port) as proxy:
        use_config(ssh, monkeypatch, tmp_path, Port=str(proxy.port))
        store = open_store(ssh.address.replace("there", f"there:{proxy.port}"), {})
        assert store.read("a") is None
        proxy.reset = 0.005
        use_everything(store, tmp_path)
        store.close()


def test_processes_share_one_login(ssh: Ssh, umpteen: Umpteen) -> None:
    before = count_logins(ssh)
    for number in range(3):
        done = umpteen("run", f"echo {number}", "--name", "job", "--results", ssh.address)
        assert done.returncode == 0, done.stderr
    assert count_logins(ssh) <= before + 1  # none, where a test before has just logged in


def test_connection_is_none_of_what_a_runner_ends_at_its_end(
    ssh: Ssh, sockets: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_config(ssh, monkeypatch, tmp_path, ControlPath=f"{sockets}/%C", ControlMaster="auto")
    monkeypatch.setenv(RUNNER, "token")  # as in a runner
    children = list_children()
    connection = HostConnection(openssh.Destination(ssh.host))
    try:
        connections = list_children() - children
        assert [is_marked_otherwise(pid, RUNNER, "token") for pid in connections] == [True]
        assert list_marked(RUNNER, "token") == []  # nor the login, which others use too
    finally:
        connection.close()


def test_login_that_is_refused_is_named(
    ssh: Ssh, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    use_config(ssh, monkeypatch, tmp_path, IdentityFile=str(key), ControlPath="none")
    store = open_store(ssh.address.replace("there", "nobody@there"), {})
    with pytest.raises(StoreError, match="refused the login") as caught:
        store.read("a")
    assert "ssh nobody@there must work" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("known", "needle"),
    [("", "host key is not known here"), ("other", "host key has changed")],
)
def test_host_key_that_is_not_right_is_refused(
    ssh: Ssh,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    known: str,
    needle: str,
    sockets: Path,
) -> None:
    lines = ""
    if known:
        key = tmp_path / "host"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        lines = f"[127.0.0.1]:{ssh.sftp.port} {(tmp_path / 'host.pub').read_text()}"
    (tmp_path / "known_hosts").write_text(lines)
    changes = {"UserKnownHostsFile": str(tmp_path / "known_hosts"), "StrictHostKeyChecking": "yes"}
    use_config(ssh, monkeypatch, tmp_path, ControlPath=f"{sockets}/%C", **changes)
    store = open_store(ssh.address.replace("there", f"there:{ssh.sftp.port}"), {})
    with pytest.raises(StoreError, match=needle):
        store.read("a")


def test_host_without_python_is_named(
    ssh: Ssh, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sockets: Path
) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("bash", "sh"):
        (tmp_path / "bin" / name).symlink_to(f"/bin/{name}")
    (tmp_path / ".bash_profile").write_text(f"PATH={tmp_path}/bin\n")
    # As of a login shell there whose profile leaves nothing on the PATH.
    key = (ssh.sftp.keys / "user_key.pub").read_text()
    own = ssh.sftp.keys / "authorized_keys"
    before = own.read_bytes()
    own.write_text(f'command="HOME={tmp_path} eval \\"$SSH_ORIGINAL_COMMAND\\"" {key}')
    try:
        use_config(ssh, monkeypatch, tmp_path, ControlPath=f"{sockets}/%C")
        store = open_store(ssh.address.replace("there", f"{ssh.sftp.user}@there"), {})
        with pytest.raises(StoreError, match="it has no python3"):
            store.read("a")
    finally:
        own.write_bytes(before)


def test_host_whose_shell_says_nothing_is_given_up(
    ssh: Ssh, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sockets: Path
) -> None:
    monkeypatch.setattr(openssh, "_HELLO_S", 0.2)
    own = ssh.sftp.keys / "authorized_keys"
    before = own.read_bytes()
    key = (ssh.sftp.keys / "user_key.pub").read_text()
    own.write_text(f'command="[ \\"$SSH_ORIGINAL_COMMAND\\" = \'exit 0\' ] || sleep 600" {key}')
    try:
        use_config(ssh, monkeypatch, tmp_path, ControlPath=f"{sockets}/%C")
        store = open_store(ssh.address.replace("there", f"there:{ssh.sftp.port}"), {}, 0.0)
        with pytest.raises(StoreError, match="does not answer"):
            store.read("a")
    finally:
        own.write_bytes(before)


def test_place_that_may_not_be_written_is_named(ssh: Ssh) -> None:
    (ssh.sftp.folder / "file").write_text("no folder")
    store = open_store(f"ssh://there{ssh.sftp.folder}/file/job", {})
    with pytest.raises(StoreError, match="there says 'Not a directory'"):
        store.replace("a", b"x")


def test_file_that_cannot_get_its_name_leaves_nothing(ssh: Ssh) -> None:
    store = open_store(ssh.address, {})
    store.replace("a/b", b"x")
    with pytest.raises(StoreError):
        store.replace("a", b"y")
    assert store.names("") == ["a"]


def test_message_that_was_sent_by_half_ends_the_connection(
    ssh: Ssh, monkeypatch: pytest.MonkeyPatch
) -> None:
    destination = openssh.parse_destination(ssh.host)
    assert destination is not None
    connection = openssh.HostConnection(destination)

    def interrupt(_: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(connection, "_send", interrupt)
    with pytest.raises(KeyboardInterrupt):
        connection.ask("measure", path="/")
    assert connection.is_lost


def test_host_that_cannot_be_one_is_refused() -> None:
    with pytest.raises(SettingsError, match="names no host"):
        open_store("ssh://-oProxyCommand=touch/a", {})


def test_option_that_is_not_known_is_named(ssh: Ssh) -> None:
    with pytest.raises(SettingsError, match="there is no option 'port'"):
        open_store(ssh.address, {"port": 22}).read("a")


@pytest.mark.usefixtures("ssh")
def test_home_of_the_host_is_found() -> None:
    name, home = f".umpteen-test-{os.getpid()}", Path(pwd.getpwuid(os.getuid()).pw_dir)
    store = open_store(f"ssh://there/~/{name}", {})
    try:
        store.replace("a", b"x")
        assert (home / name / "a").read_bytes() == b"x"
    finally:
        store.delete("a")
        (home / name).rmdir()


@contextlib.contextmanager
def answering(ssh: Ssh, program: str) -> Iterator[None]:
    """Have the host run a program of Python where it is to run the agent."""
    key = (ssh.sftp.keys / "user_key.pub").read_text()
    own = ssh.sftp.keys / "authorized_keys"
    before = own.read_bytes()
    script = ssh.sftp.folder / "answer.py"
    script.write_text(program)
    asked = "[ \\\"$SSH_ORIGINAL_COMMAND\\\" = 'exit 0' ]"
    own.write_text(f'command="{asked} || exec {sys.executable} {script}" {key}')
    try:
        yield
    finally:
        own.write_bytes(before)


_ANSWER = """
import json, sys
source = sys.stdin.buffer
source.read(int(source.readline()))
print("umpteen-agent", json.dumps({"home": "/"}), flush=True)
source.readline()
print(ANSWER, flush=True)
source.read()
"""


@pytest.mark.parametrize(
    "answer",
    [
        "'[' * 100_000",
        '\'{"id": Infinity, "size": 0}\'',
        '\'{"id": 1, "size": Infinity}\'',
        '\'{"id": 1, "size": 0, "errno": "no number"}\'',
        '\'{"id": 1, "size": 0, "errno": Infinity}\'',
        '\'{"id": 1, "size": 1e9}\'',
        "'[]'",
    ],
)
def test_answer_that_cannot_be_one_ends_the_connection(
    ssh: Ssh, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str, sockets: Path
) -> None:
    use_config(ssh, monkeypatch, tmp_path, ControlPath=f"{sockets}/%C")
    destination = openssh.Destination("there", ssh.sftp.user, str(ssh.sftp.port))
    with answering(ssh, _ANSWER.replace("ANSWER", answer)):
        connection = openssh.HostConnection(destination)
        with pytest.raises(openssh.NonsenseError, match="answers what cannot be"):
            connection.ask("measure", path="/").result(30)
        assert connection.is_lost


_SILENT = """
import pathlib, time
pathlib.Path(__file__).with_name("asked").touch()
time.sleep(60)
"""


def test_end_does_not_wait_for_a_host_that_says_nothing(
    ssh: Ssh, umpteen: Umpteen, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sockets: Path
) -> None:
    use_config(ssh, monkeypatch, tmp_path, ControlPath=f"{sockets}/%C")
    with answering(ssh, _SILENT):
        running = umpteen.start("status", ssh.address)
        wait_until((ssh.sftp.folder / "asked").exists, 60)
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=20)


@pytest.mark.parametrize("error", [HostError("it was lost", is_transient=True), TimeoutError()])
def test_what_a_lost_connection_has_left_is_removed(
    ssh: Ssh, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    ask, lost = ssh_backend._ask, list[str]()

    async def lose(connection: HostConnection, call: str, body: bytes = b"", **given: Any) -> Any:
        if call == "give_name" and not lost:
            lost.append(call)
            raise error
        return await ask(connection, call, body, **given)

    monkeypatch.setattr(ssh_backend, "_ask", lose)
    store = open_store(ssh.address, {})
    store.replace("a", b"x")
    assert lost
    assert list(store.walk("")) == [("a", 1)]
    store.close()


def test_request_that_a_host_never_answers_is_made_again_by_another_connection(
    ssh: Ssh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_LOOKING_S", 0.0)  # no patience is as long as the silence
    store = open_store(ssh.address, {})
    assert store.read("a") is None
    connection = openssh.connect(openssh.Destination(ssh.host))
    agent = int(connection.run(["sh", "-c", "echo $PPID"], b"", {}, 10.0)[1])
    monkeypatch.setattr(ssh_backend, "_SILENT_S", 1.0)
    os.kill(agent, signal.SIGSTOP)
    try:
        assert store.read("a") is None
    finally:
        os.kill(agent, signal.SIGKILL)
    assert connection.is_lost
    store.close()


def test_silent_host_keeps_no_other_from_being_reached(
    ssh: Ssh, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sockets: Path
) -> None:
    use_config(ssh, monkeypatch, tmp_path, ControlPath=f"{sockets}/%C")
    silent = openssh.Destination("there", ssh.sftp.user)
    with answering(ssh, _SILENT):
        threading.Thread(target=reach, args=(silent,), daemon=True).start()
        wait_until((ssh.sftp.folder / "asked").exists, 60)
    other = openssh.Destination("there", ssh.sftp.user, str(ssh.sftp.port))
    reaching = BackgroundCall(lambda: openssh.connect(other))
    assert reaching.is_over(30)
    assert reaching.take().home


def reach(destination: openssh.Destination) -> None:
    with contextlib.suppress(openssh.HostError):
        openssh.connect(destination)


def test_list_of_jobs_asks_nothing_at_the_terminal(
    ssh: Ssh, umpteen: Umpteen, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sockets: Path
) -> None:
    umpteen("run", "true", "--name", "job", "--results", ssh.address)
    key, asked, program = tmp_path / "other", tmp_path / "asked", tmp_path / "ask"
    make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(key)]
    subprocess.run(make, check=True)
    own = ssh.sftp.keys / "authorized_keys"
    before = own.read_bytes()
    own.write_bytes(before + (tmp_path / "other.pub").read_bytes())
    program.write_text(f"#!/bin/sh\ntouch {asked}\necho secret\n")
    program.chmod(0o700)
    changes = {"IdentityFile": str(key), "ControlPath": f"{sockets}/%C"}
    use_config(ssh, monkeypatch, tmp_path, **changes)
    asking = {"SSH_ASKPASS": str(program), "SSH_ASKPASS_REQUIRE": "force"}
    try:
        listed = umpteen("ls", env=asking)
        assert "refused the login" in listed.stdout
        assert not asked.exists()
        assert umpteen("status", "job", env=asking).returncode == 0
        assert asked.exists()
    finally:
        own.write_bytes(before)


@pytest.mark.parametrize("found", ["null", "[]", "{}", '{"code": "x"}', '{"code": Infinity}'])
def test_end_of_a_command_that_cannot_be_one_is_an_error(
    ssh: Ssh, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: str, sockets: Path
) -> None:
    use_config(ssh, monkeypatch, tmp_path, ControlPath=f"{sockets}/%C")
    answer = f'{{"id": 1, "size": 0, "found": {found}}}'
    with answering(ssh, _ANSWER.replace("ANSWER", repr(answer))):
        connection = openssh.HostConnection(openssh.Destination("there"))
        with pytest.raises(openssh.HostError, match="answers what cannot be"):
            connection.run(["true"], b"", {}, 30)
        connection.close()


def test_connection_whose_command_never_ends_is_not_used_again(
    ssh: Ssh, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sockets: Path
) -> None:
    use_config(ssh, monkeypatch, tmp_path, ControlPath=f"{sockets}/%C")
    with answering(ssh, _ANSWER.replace("print(ANSWER, flush=True)", "")):
        connection = openssh.HostConnection(openssh.Destination("there"))
        monkeypatch.setattr(openssh, "_HELLO_S", 0.1)
        with pytest.raises(openssh.HostError, match="does not answer"):
            connection.run(["true"], b"", {}, 0.1)
        wait_until(lambda: connection.is_lost)
