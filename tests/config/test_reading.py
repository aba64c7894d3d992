"""Machines are read from both files, value by value; what is wrong is named with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from umpteen.config.machines import DEFAULT
from umpteen.config.reading import choose_machine, config_path, milex_path, read_config
from umpteen.errors import InputError, SettingsError

TOML = """\
# my machines
[machines.local]
path = "/scratch/me/work"
account = "def-me"

[machines.big]
host = "big"
path = "/big/me"
[machines.big.slurm]
partition = "gpu"
time = "2h"
cpus_per_task = 4
exclusive = true
"""
MILEX = {
    "local": {
        "path": "/milex/me", "env_command": "source /milex/venv/bin/activate",
        "slurm_account": "milex-me",
    },
    "url": {
        "path": "/url/me", "env_command": "", "slurm_account": "rrg", "hosturl": "url.example",
        "username": "me", "key_path": "~/.ssh/url",
    },
}  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


def write(text: str) -> None:
    path = Path(config_path())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_milex(content: object) -> None:
    Path(milex_path()).write_text(json.dumps(content))


def test_config_without_files_has_a_local_machine_in_the_data_folder(home: Path) -> None:
    local = read_config().local
    assert (local.folder, local.sources) == (f"{home}/data/umpteen/bundles", {"path": DEFAULT})


def test_config_file_describes_machines() -> None:
    write(TOML)
    config = read_config()
    big = config.find("big")
    assert (config.local.account, big.target, big.is_local) == ("def-me", "big", False)
    assert big.slurm == {
        "partition": "gpu", "time": "120:00", "cpus-per-task": "4", "exclusive": "",
    }  # fmt: skip
    assert set(big.sources.values()) == {config_path()}


def test_config_takes_each_value_of_the_own_file_before_that_of_milex() -> None:
    write(TOML)
    write_milex(MILEX)
    local = read_config().local
    assert (local.path, local.env_command) == (
        "/scratch/me/work", "source /milex/venv/bin/activate",
    )  # fmt: skip
    assert (local.sources["path"], local.sources["env_command"]) == (config_path(), milex_path())


def test_milex_host_by_url_has_user_and_key() -> None:
    write_milex(MILEX)
    url = read_config().find("url")
    assert (url.target, url.key_path, url.account) == ("me@url.example", "~/.ssh/url", "rrg")


def test_milex_hostname_wins_over_url_user_and_key() -> None:
    write_milex({"url": {**MILEX["url"], "hostname": "alias"}})
    url = read_config().find("url")
    assert (url.target, url.user, url.key_path) == ("alias", "", "")


def test_milex_file_with_nulls_and_other_keys_is_read_as_it_is() -> None:
    write_milex({"local": {"path": "/milex/me", "hostname": None, "comment": 3}})
    assert read_config().local.is_local


def test_user_without_a_host_leaves_it_this_machine() -> None:
    write_milex({"local": {"path": "/milex/me", "username": "me"}})
    assert (read_config().local.is_local, read_config().local.target) == (True, "")


def test_local_path_may_begin_with_the_home(home: Path) -> None:
    write('[machines.local]\npath = "~/work"\n')
    assert read_config().local.folder == f"{home}/work"


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[machines.big\n", ", line 1, column 14: Expected ']'", ""),
        ("[machines.big]\npaht = '/x'\n", ", line 2: unknown key 'paht'", "'path'"),
        ("[machine.big]\n", ": unknown key 'machine'", "'machines'"),
        ("[machines]\nbig = 3\n", ", line 2: 'machines.big' must be a table, not 3", ""),
        ("[machines.big]\npath = 3\n", ", line 2: 'machines.big.path' must be text, not 3", ""),
        (
            "[machines.big]\npath = 'x'\n",
            ": machine 'big': the path 'x' is not absolute",
            "begin it with '/'",
        ),
        (
            "[machines.big.slurm]\npartytion = 'x'\n",
            ", line 2: the executor 'slurm' has no option 'partytion'",
            "'partition'",
        ),
        ("[machines.big]\nhost = '-oProxyCommand=x'\n", "is nothing that ssh connects to", ""),
        ("[machines.big]\nhost = 'big/work'\n", "'big/work' is nothing that ssh connects to", ""),
        ('[machines.big]\nenv_command = "a\\u0000"\n', "'env_command' must be text", ""),
        (f"[machines.big]\npath = {'1' * 5000}\n", ": a number has too many digits", ""),
        ("[machines.local]\nhost = 'big'\n", "'local' is this machine", "differently"),
    ],
)
def test_config_file_that_is_wrong_is_refused(text: str, message: str, hint: str) -> None:
    write(text)
    with pytest.raises(InputError) as caught:
        read_config()
    assert caught.value.message.startswith(config_path())
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"local": {"path": }}', "line 1, column 20: Expecting value"),
        ("[]", "is no JSON object of machines"),
        ('{"local": 3}', "'local' must be an object, not 3"),
        ('{"local": {"path": 3}}', "'local.path' must be text, not 3"),
        ('{"local": {"path": "/\\ud800"}}', "'path' must be one line of text"),
        ('{"local": {"env_command": "\\ud800"}}', "'env_command' must be text"),
        (f'{{"local": {"1" * 5000}}}', "is no JSON text"),
    ],
)
def test_milex_file_that_is_wrong_is_refused(content: str, message: str) -> None:
    Path(milex_path()).write_text(content)
    with pytest.raises(InputError) as caught:
        read_config()
    assert caught.value.message.startswith(milex_path())
    assert message in caught.value.message


def test_unknown_machine_is_answered_with_the_nearest() -> None:
    write(TOML)
    with pytest.raises(SettingsError, match="no machine 'bgi'") as caught:
        read_config().find("bgi")
    assert "'big'" in (caught.value.hint or "")


def test_machine_without_a_path_says_so_where_it_is_needed() -> None:
    write("[machines.big]\nhost = 'big'\n")
    with pytest.raises(SettingsError, match="the machine 'big' has no 'path'"):
        _ = read_config().find("big").folder


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("big", {"path": "x"}, "the command line: machine 'big': the path 'x' is not absolute"),
        ("local", {"host": "h"}, "the command line: machine 'local': 'local' is this machine"),
        (None, {"host": "-oProxyCommand=x"}, "is nothing that ssh connects to"),
        ("bgi", {}, "there is no machine 'bgi'"),
    ],
)
def test_flags_of_a_machine_that_cannot_be_are_refused(
    name: str | None, given: dict[str, str], message: str
) -> None:
    write(TOML)
    with pytest.raises((InputError, SettingsError)) as caught:
        choose_machine(read_config(), name, given)
    assert message in caught.value.message


def test_flags_say_that_they_gave_a_value() -> None:
    write(TOML)
    machine = choose_machine(read_config(), "big", {"path": "/flag"})
    sources = machine.sources
    assert (sources["path"], sources["host"]) == ("the command line", config_path())
