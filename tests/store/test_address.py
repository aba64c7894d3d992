"""Which store an address stands for, and how it is kept."""

from __future__ import annotations

import os

import pytest

from umpteen.errors import SettingsError
from umpteen.store.address import (
    OPTIONS_VARIABLE,
    find_output,
    is_remote,
    is_root,
    open_store,
    parse_address,
    read_patience,
)
from umpteen.store.base import Store
from umpteen.store.directory import DirectoryStore


@pytest.mark.parametrize(
    "path", ["/", "//", "/./", "/..", "/../.", "/tmp/..", "file:///", "file:///a/..", "FILE:///."]
)
def test_root_folder_is_known_however_it_is_written(path: str) -> None:
    assert is_root(path)


@pytest.mark.parametrize("path", ["", ".", "..", "/a", "/...", "file://", "s3://b/", "./", "a/.."])
def test_other_folders_are_not_the_root(path: str) -> None:
    assert not is_root(path)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("/a//b/../c/", "/a/c"),
        ("file:///a%20b", "/a%20b"),
        ("FILE:///a", "/a"),
        ("S3://Bucket/a//b/", "s3://Bucket/a/b"),
        ("s3a://bucket/", "s3://bucket"),
        ("s3://bucket/a b/#1", "s3://bucket/a b/#1"),
        ("ssh://user@host:2200//a/b", "ssh://user@host:2200/a/b"),
        ("gcs://bucket/a", "gs://bucket/a"),
        ("abfss://box@account.dfs.core.windows.net/a", "abfs://box@account.dfs.core.windows.net/a"),
        ("memory://a/b", "memory://a/b"),
        ("memory:///a/b", "memory:///a/b"),
    ],
)
def test_address_is_kept_in_one_spelling(address: str, expected: str) -> None:
    assert parse_address(address) == expected
    assert parse_address(expected) == expected


@pytest.mark.parametrize(
    ("output", "place", "key"),
    [
        ("memory://host/a/b/task", "memory://host", "a/b/task"),
        ("memory:///top/a/task", "memory:///top", "a/task"),
        ("sftp://user@host/~/a/task", "sftp://user@host/~", "a/task"),
        ("ssh://host/a/task", "ssh://host", "a/task"),
        ("/a/b/task", None, "task"),
        ("memory://job/one/task", None, "task"),
    ],
)
def test_outputs_elsewhere_share_a_store_for_each_place(
    output: str, place: str | None, key: str
) -> None:
    opened: dict[str, Store] = {}
    store, found = find_output(open_store("memory://job/one", {}), output, opened)
    assert found == key
    assert list(opened) == ([place] if place else [])
    if place:
        assert opened[place] is store
        assert find_output(open_store("/a", {}), output, opened) == (store, key)


def test_address_of_a_folder_is_absolute() -> None:
    assert parse_address("a/b") == os.path.abspath("a/b")
    assert parse_address("~/a") == os.path.expanduser("~/a")
    assert parse_address("./s3:/a") == os.path.abspath("s3:/a")
    assert parse_address("s3x:1/a") == os.path.abspath("s3x:1/a")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("file://a", "absolute path"),
        ("s3://", "has no place"),
        ("s3:///a", "has no place"),
        ("s3://bucket/a/../b", "'..'"),
        ("s3:/bucket/a", "no '//'"),
        ("s3:bucket/a", "no '//'"),
        ("SFTP:/host/a", "no '//'"),
        ("file:/a", "no '//'"),
        ("simplecache::s3://key:hidden@bucket/a", "no scheme"),
        (" s3://bucket/a", "no scheme"),
        ("1s://bucket/a", "no scheme"),
        ("http://host/a", "nothing can be kept"),
        ("zip://a/b", "nothing can be kept"),
        ("abfs://box/a?sig=hidden", "'?'"),
        ("sftp://user:hidden@host/a", "password"),
        ("s3://AKIA:hidden@bucket/a", "password"),
    ],
)
def test_address_that_cannot_be_is_refused_without_secrets(address: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_address(address)
    assert words in caught.value.message
    assert caught.value.hint
    assert "hidden" not in caught.value.message + caught.value.hint


def test_address_of_an_unknown_scheme_names_the_nearest() -> None:
    with pytest.raises(SettingsError) as caught:
        parse_address("sfpt://host/a")
    assert "sfpt://" in caught.value.message
    assert "'sftp'" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("address", "expected"),
    [("a/b", False), ("/s3://a", False), ("file:///a", False), ("s3://b/a", True)],
)
def test_is_remote_is_so_for_other_places(address: str, expected: bool) -> None:
    assert is_remote(address) is expected


def test_open_store_of_a_folder_is_a_directory_store() -> None:
    store = open_store("/a/b/")
    assert isinstance(store, DirectoryStore)
    assert store.address == "/a/b"


@pytest.mark.parametrize("text", ["{hidden", '["hidden"]', '"hidden"'])
def test_open_store_with_wrong_options_does_not_show_them(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv(OPTIONS_VARIABLE, text)
    with pytest.raises(SettingsError) as caught:
        open_store("memory://a")
    assert OPTIONS_VARIABLE in caught.value.message
    assert "hidden" not in caught.value.message + (caught.value.hint or "")


@pytest.mark.parametrize("said", ["", "7.5"])
def test_patience_is_what_the_environment_says(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMPTEEN_STORE_PATIENCE_S", said)
    assert read_patience() == float(said or 60)


def test_patience_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMPTEEN_STORE_PATIENCE_S", "soon")
    with pytest.raises(SettingsError, match="'soon', which is no number of seconds"):
        read_patience()


def test_output_beside_the_root_is_looked_for_there() -> None:
    store, key = find_output(open_store("/a", {}), "/x")
    assert store.path(key).replace("//", "/") == "/x"
