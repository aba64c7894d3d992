"""`--sync` and `file_syncs`: which folder goes where."""

from __future__ import annotations

from typing import Any

import pytest

from umpteen.errors import InputError
from umpteen.formats.syncs import Sync, parse_sync, parse_syncs


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")


@pytest.mark.parametrize(
    ("text", "src", "dest"),
    [
        ("code", "code", None),
        ("./my code/", "./my code/", None),
        ("code:", "code", None),
        ("code:/scratch/my code", "code", "/scratch/my code"),
        ("code:work", "code", "work"),
        ("~/code", "/home/me/code", None),
        ("~/code:~/code", "/home/me/code", "~/code"),
        ("~", "/home/me", None),
        ("a~b", "a~b", None),
    ],
)
def test_parse_sync_gives_both_sides(text: str, src: str, dest: str | None) -> None:
    assert parse_sync(text) == Sync(src, dest)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:b:c", "'a:b:c' has more than one colon"),
        ("s3://bucket/code", "s3://bucket/code is no folder of a machine"),
        ("s3://bucket/code:there", "s3://bucket/code is no folder"),
        ("code:s3://bucket", "s3://bucket is no folder"),
        ("", "the folder to sync is missing"),
        (":there", "the folder to sync is missing"),
        ("a\0b", "NUL"),
    ],
)
def test_parse_sync_refuses_what_is_no_folder(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_sync(text)
    assert message in str(caught.value)
    assert caught.value.field == "sync"


def test_parse_syncs_reads_entries() -> None:
    entries = [{"src": "~/a:b"}, {"src": "a", "dest": "~/c"}, {"src": "a", "dest": None}]
    expected = [Sync("/home/me/a:b", None), Sync("a", "~/c"), Sync("a", None)]
    assert parse_syncs(entries) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("code", "'file_syncs' must be a list, not 'code'"),
        ({"src": "code"}, "must be a list, not a mapping"),
        (["code"], "an entry of 'file_syncs' must be a mapping, not 'code'"),
        ([{"source": "code"}], "unknown key 'source' in 'file_syncs'"),
        ([{"dest": "code"}], "the folder to sync is missing"),
        ([{"src": None}], "the folder to sync is missing"),
        ([{"src": ["a"]}], "'src' in 'file_syncs' must be a path, not a list"),
        ([{"src": "a", "dest": 1}], "'dest' in 'file_syncs' must be a path, not 1"),
        ([{"src": "s3://b/code"}], "s3://b/code is no folder"),
    ],
)
def test_parse_syncs_refuses_what_is_no_list_of_folders(given: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_syncs(given)
    assert message in str(caught.value)
    assert caught.value.field == "file_syncs"
