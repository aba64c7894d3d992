"""A file that is written whole: its new content or its old one, and nothing beside it."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from umpteen.system.whole_files import read_file, replace_file, written_whole


def test_file_takes_its_place_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with written_whole(str(path)) as temporary:
        Path(temporary).write_text("content")
        assert not path.exists()
    assert path.read_text() == "content"
    assert list(path.parent.iterdir()) == [path]


def test_file_stays_as_it_was_where_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(FileNotFoundError), written_whole(str(path)) as temporary:
        (tmp_path / "gone" / temporary).unlink()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_replaced_file_has_the_new_text_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for text in ("long before", "é"):
        replace_file(str(path), text)
    assert path.read_text(encoding="utf-8") == "é"
    assert list(tmp_path.iterdir()) == [path]


def test_replaced_file_does_not_make_its_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        replace_file(str(tmp_path / "gone" / "file"), "text")


def test_whole_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a\x00b\n")
    assert read_file(str(path)) == b"a\x00b\n"


def test_file_that_is_all_holes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    with path.open("r+b") as file:
        file.truncate(1 << 42)
    with pytest.raises(OSError, match="File too large") as caught:
        read_file(str(path))
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(path))
