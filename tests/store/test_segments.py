"""Records in segments: their names, and which of them a reader needs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umpteen.errors import StoreError
from umpteen.store.base import Content
from umpteen.store.directory import DirectoryStore
from umpteen.store.segments import (
    SEGMENT_BYTES,
    Segment,
    Segments,
    is_records_key,
    join_names,
    plan_read,
)

KEY = ".umpteen/records/7/1-aa.jsonl"


class FailingStore(DirectoryStore):
    """A store whose next writes fail."""

    failures = 0

    def replace(self, key: str, content: Content) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreError("no answer in time", transient=True)
        super().replace(key, content)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (KEY, True),
        (".umpteen/records/7/1-aa.0.jsonl", False),
        (".umpteen/records/7/closed", False),
        (".umpteen/running/7/1-aa.jsonl", False),
        ("task/.umpteen/records/7/1-aa.jsonl", False),
    ],
)
def test_records_key_is_known_by_its_folder_and_name(key: str, expected: bool) -> None:
    assert is_records_key(key) is expected


def test_join_names_shows_one_for_all_segments() -> None:
    entries = [("1-aa.1.jsonl", 5), ("closed", 0), ("1-aa.0.jsonl", 9), ("2-bb.jsonl", 3)]
    names, found = join_names([*entries, ("1-aa.10.jsonl", 1)])
    assert sorted(names) == ["1-aa.jsonl", "2-bb.jsonl", "closed"]
    assert [segment.number for segment in found["1-aa.jsonl"]] == [0, 1, 10]
    assert found["2-bb.jsonl"] == [Segment(-1, "2-bb.jsonl", 3)]


@given(st.lists(st.integers(0, 30), max_size=5), st.integers(-400, 400))
def test_plan_read_gives_what_is_after_the_offset(extras: list[int], offset: int) -> None:
    sizes = [SEGMENT_BYTES + extra for extra in extras] + [100]
    segments = [Segment(n, str(n), size) for n, size in enumerate(sizes)]
    content = {s.name: bytes([65 + s.number]) * s.size for s in segments}
    whole = b"".join(content.values())
    for start in (offset, offset + SEGMENT_BYTES if offset > 0 else offset - SEGMENT_BYTES):
        read = b"".join(content[name][at:] for name, at in plan_read(segments, start))
        assert read == whole[start:]


def test_plan_read_ends_with_a_segment_that_is_not_full() -> None:
    segments = [Segment(0, "0", SEGMENT_BYTES - 1), Segment(1, "1", 5)]
    assert plan_read(segments, 0) == [("0", 0)]


def test_segments_begin_anew_once_one_is_full(tmp_path: Path) -> None:
    store = DirectoryStore(str(tmp_path))
    segments = Segments(store, KEY)
    lines = [b"%d" % number * (SEGMENT_BYTES // 2) + b"\n" for number in range(5)]
    for line in lines:
        segments.append(line)
        segments.flush()
    names = sorted(store.names(".umpteen/records/7"))
    assert names == ["1-aa.0.jsonl", "1-aa.1.jsonl", "1-aa.2.jsonl"]
    assert store.read(".umpteen/records/7/1-aa.1.jsonl") == lines[2] + lines[3]
    assert segments.size == sum(map(len, lines))


def test_segments_keep_what_could_not_be_put(tmp_path: Path) -> None:
    store = FailingStore(str(tmp_path))
    segments = Segments(store, KEY)
    segments.append(b"one\n")
    store.failures = 1
    with pytest.raises(StoreError):
        segments.flush()
    assert (segments.pending, segments.size) == (b"one\n", 0)
    segments.append(b"two\n")
    segments.flush()
    assert (segments.pending, segments.size) == (b"", 8)
    assert store.read(".umpteen/records/7/1-aa.0.jsonl") == b"one\ntwo\n"


def test_segments_without_news_put_nothing(tmp_path: Path) -> None:
    store = DirectoryStore(str(tmp_path))
    Segments(store, KEY).flush()
    assert store.walk("") == []
