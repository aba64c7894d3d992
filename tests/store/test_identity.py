"""One store is one store, however its address is spelled; a copy is another."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from umpteen.store.directory import DirectoryStore
from umpteen.store.identity import Identity, build_id, identify, read_id
from umpteen.store.layout import JOB

WORD, OTHER = "0123456789abcdef", "f" * 16


def make(path: Path, content: bytes = b"") -> Identity:
    store = DirectoryStore(str(path))
    store.create(JOB, content or b'{"id":"%s"}' % WORD.encode())
    return identify(store)


def known(path: Path) -> Identity:
    return identify(DirectoryStore(str(path)))


def fit(one: Identity, other: Identity) -> bool:
    """Whether what a lease tells of `one` is of `other`."""
    return other.fits(one._asdict())


def test_identity_is_the_same_through_a_link_and_after_a_move(tmp_path: Path) -> None:
    store = make(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    assert fit(store, known(tmp_path / "link"))
    assert known(tmp_path / "link").digest == store.digest
    (tmp_path / "real").rename(tmp_path / "moved")
    assert fit(store, known(tmp_path / "moved"))
    assert known(tmp_path / "moved").digest == store.digest


def test_identity_of_a_copy_is_another(tmp_path: Path) -> None:
    store = make(tmp_path / "real")
    shutil.copytree(tmp_path / "real", tmp_path / "copy")
    copy = known(tmp_path / "copy")
    assert copy.id == store.id == WORD
    assert not fit(store, copy)
    assert copy.digest != store.digest


def test_identity_of_a_job_without_a_word_is_its_folder(tmp_path: Path) -> None:
    store = make(tmp_path / "real", b'{"name":"old","version":1}')
    assert store.id == ""
    (tmp_path / "real").rename(tmp_path / "moved")
    assert fit(store, known(tmp_path / "moved"))


@pytest.mark.parametrize(
    ("told", "is_same"),
    [
        ({"address": "/a"}, True),  # as older versions had it
        ({"address": "/b"}, False),
        ({"address": "/b", "id": WORD, "place": "1:2"}, True),
        ({"address": "/b", "id": OTHER, "place": "1:2"}, False),  # a folder that has its inode now
        ({"address": "/b", "id": "", "place": "1:2"}, True),
        ({"address": "/b", "id": WORD, "place": "1:3"}, False),
        ({"address": "/a", "id": OTHER, "place": "1:3"}, True),  # what wrote there writes there
        ({"address": "sftp://host/a", "id": WORD, "place": ""}, True),
        ({"address": "sftp://host/a", "id": "", "place": ""}, False),
        ({}, False),
    ],
)
def test_identity_fits_what_leases_tell(told: dict[str, str], is_same: bool) -> None:
    assert Identity("/a", WORD, "1:2").fits(told) is is_same


def test_identity_of_a_store_elsewhere_is_its_word() -> None:
    told = Identity("s3://bucket/a", WORD)._asdict()
    assert Identity("s3://other/b", WORD).fits(told)
    assert not Identity("s3://other/b", OTHER).fits(told)
    assert Identity("s3://other/b", WORD).digest == Identity("s3://bucket/a", WORD).digest


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"7", b'{"id":7}', b'{"id":"../x"}', b'{"id":null}', b"[" * 100_000, None],
)
def test_identity_word_that_has_not_its_form_is_none(content: bytes | None) -> None:
    assert read_id(content) == ""


def test_identity_word_of_new_jobs_has_its_form() -> None:
    word = build_id()
    assert read_id(b'{"id":"%s"}' % word.encode()) == word != build_id()


def test_identity_of_no_folder_has_no_place(tmp_path: Path) -> None:
    assert known(tmp_path / "none") == Identity(os.fspath(tmp_path / "none"))
