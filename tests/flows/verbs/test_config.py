"""`umpteen config`: the file, the editor, and what it makes on machines, by a real ssh too."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.command import Umpteen
from tests.support.sftp import SftpServer
from umpteen.model.variables import SSH

FOLDERS = {"data", "models", "slurm", "jobs", "results"}


def config_file(umpteen: Umpteen) -> Path:
    return umpteen.home / ".config" / "umpteen" / "config.toml"


def write_config(umpteen: Umpteen, text: str) -> None:
    config_file(umpteen).parent.mkdir(parents=True, exist_ok=True)
    config_file(umpteen).write_text(text)


def list_folders(path: Path) -> set[str]:
    return {each.name for each in path.iterdir()}


@pytest.fixture
def editor(umpteen: Umpteen) -> Callable[[str], str]:
    """`editor(TEXT)` is an editor with an argument, which writes that text."""

    def make(text: str) -> str:
        umpteen.write("text.toml", text)
        umpteen.write("an editor", 'cp "$2" "$2.before"; cp "$1" "$2"\n')
        return f"sh '{umpteen.folder}/an editor' {umpteen.folder}/text.toml"

    return make


def test_line_14_config_makes_a_template_opens_the_editor_and_makes_five_folders(
    umpteen: Umpteen, editor: Callable[[str], str]
) -> None:
    path = umpteen.folder / "my $work"
    done = umpteen("config", env={"EDITOR": editor(f'[machines.local]\npath = "{path}"\n')})
    assert (done.returncode, done.stderr) == (0, "")
    before = Path(f"{config_file(umpteen)}.before").read_text()
    assert "# [machines.local]" in before
    assert list_folders(path) == FOLDERS


def test_line_34_config_run_twice_exports_milex_once(umpteen: Umpteen) -> None:
    path = umpteen.folder / 'my "$work"'
    (umpteen.home / ".bashrc").write_text("true # without a line's end")
    write_config(umpteen, f"[machines.local]\npath = '{path}'\n")
    for _ in range(2):
        assert umpteen("config", "setup").returncode == 0
    bashrc = umpteen.home / ".bashrc"
    assert bashrc.read_text().count("MILEX") == 1
    script = f'. {shlex.quote(str(bashrc))}; printf %s "$MILEX"'
    said = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout == str(path)


def test_config_takes_visual_before_editor_and_gits_where_there_are_none(
    umpteen: Umpteen, editor: Callable[[str], str]
) -> None:
    good, bad = editor(""), "false"
    (umpteen.home / ".gitconfig").write_text(f'[core]\neditor = "{good}"\n')
    none = {"VISUAL": "", "EDITOR": ""}
    assert umpteen("config", env=none | {"VISUAL": bad, "EDITOR": good}).returncode == 2
    assert umpteen("config", env=none | {"VISUAL": good, "EDITOR": bad}).returncode == 0
    assert umpteen("config", env=none).returncode == 0


def test_config_says_what_is_wrong_with_what_was_written(
    umpteen: Umpteen, editor: Callable[[str], str]
) -> None:
    done = umpteen("config", "edit", env={"VISUAL": editor('[machines.local]\npaht = "/x"\n')})
    assert done.returncode == 2
    said = f"error: {config_file(umpteen)}, line 2: unknown key 'paht'\n\nhint: did you mean 'path'"
    assert said in done.stderr


def test_config_show_tells_each_value_and_its_file(umpteen: Umpteen) -> None:
    write_config(umpteen, "[machines.big]\nhost = 'big'\n[machines.big.slurm]\nhold = true\n")
    (umpteen.home / ".milexconfig").write_text(json.dumps({"big": {"path": "/x"}}))
    shown = json.loads(umpteen("config", "show", "big", "--json").stdout)
    assert shown == {
        "big": {
            "path": {"value": "/x", "source": str(umpteen.home / ".milexconfig")},
            "host": {"value": "big", "source": str(config_file(umpteen))},
            "slurm.hold": {"value": "", "source": str(config_file(umpteen))},
        }
    }
    lines = umpteen("config", "show").stdout.splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["machine", "key", "value"],
        ["local", "path", str(umpteen.home / "data/umpteen/bundles")],
        ["big", "path", "/x"],
        ["big", "host", "big"],
        ["big", "slurm.hold", "yes"],
    ]


def test_config_path_prints_where_the_file_is(umpteen: Umpteen) -> None:
    assert umpteen("config", "path").stdout == f"{config_file(umpteen)}\n"


@pytest.fixture
def far_home(
    umpteen: Umpteen, need: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The home at the other end of `ssh far`: a real ssh with a configuration of its own."""
    need("ssh-keygen")
    program = need("ssh")
    home = tmp_path / "far"
    home.mkdir()
    keys = tmp_path / "sshd"
    keys.mkdir()
    with SftpServer(keys, need("sshd"), f"SetEnv HOME={home}\n") as server:
        (keys / "config").write_text(
            f"Host far\n HostName 127.0.0.1\n User {server.user}\nHost *\n Port {server.port}\n"
            f" UserKnownHostsFile {keys}/known_hosts\n BatchMode yes\n"
        )
        ssh = umpteen.write("bin/ssh", f'#!/bin/sh\nexec {program} -F {keys}/config "$@"\n')
        ssh.chmod(0o755)
        monkeypatch.setenv("PATH", str(ssh.parent), prepend=":")
        yield home


def test_config_sets_up_a_machine_by_one_ssh(umpteen: Umpteen, far_home: Path) -> None:
    path = far_home / "it's $work"
    key = far_home.parent / "sshd" / "user_key"
    write_config(umpteen, f'[machines.big]\nhost = "far"\npath = "{path}"\nkey_path = "{key}"\n')
    for _ in range(2):
        done = umpteen("config", "setup", "big")
        assert (done.returncode, done.stderr) == (0, "")
    assert list_folders(path) == FOLDERS
    assert (far_home / ".bashrc").read_text() == f'export MILEX="{far_home}/it\'s \\$work"\n'


def test_config_sets_up_a_machine_by_the_ssh_that_is_set(umpteen: Umpteen, far_home: Path) -> None:
    key = far_home.parent / "sshd" / "user_key"
    write_config(
        umpteen, f'[machines.big]\nhost = "far"\npath = "{far_home}/work"\nkey_path = "{key}"\n'
    )
    by = {"PATH": os.environ["PATH"].partition(":")[2], SSH: str(umpteen.folder / "bin/ssh")}
    done = umpteen("config", "setup", "big", env=by)
    assert (done.returncode, done.stderr) == (0, "")
    assert list_folders(far_home / "work") == FOLDERS


@pytest.mark.usefixtures("far_home")
def test_config_skips_a_machine_that_cannot_be_reached(umpteen: Umpteen) -> None:
    (umpteen.home / ".milexconfig").write_text(
        json.dumps({
            "away": {"path": "/x", "hosturl": "127.0.0.1", "username": "nobody-here"},
            "near": {"path": str(umpteen.folder / "near")},
        })
    )  # fmt: skip
    done = umpteen("config", "setup")
    assert done.returncode == 3
    assert done.stderr.startswith("away: skipped, as nobody-here@127.0.0.1 says: ")
    assert "Permission denied" in done.stderr
    assert list_folders(umpteen.folder / "near") == FOLDERS
