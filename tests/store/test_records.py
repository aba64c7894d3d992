"""Records files: what was cut, what can be trusted, and ranges."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model.test_states import RECORDS
from umpteen.model.forms import parse_ranges
from umpteen.model.ranges import find_ranges, format_ranges, list_within
from umpteen.model.record import Record, parse_record
from umpteen.store.directory import DirectoryStore, RecordsFile
from umpteen.store.layout import RecordsKey, records_key
from umpteen.store.records import (
    EndLine,
    MovedLine,
    StartLine,
    SyncedLine,
    build_line,
    find_end,
    list_starts,
    parse_lines,
    read_start,
    trusted_size,
)
from umpteen.system.host import Machine

HERE = Machine("machine", "boot", "host")


def start_line(**more: str) -> bytes:
    return build_line({"event": "start", "machine": "machine", "boot": "boot", **more})


@given(st.lists(RECORDS, max_size=6), st.data())
def test_records_cut_anywhere_read_as_the_whole_lines(
    records: list[Record], data: st.DataObject
) -> None:
    content = b"".join(record.to_line().encode() + b"\n" for record in records)
    cut = data.draw(st.integers(0, len(content)))
    whole = content[:cut].count(b"\n")
    assert [parse_record(line) for line in parse_lines(content[:cut])] == records[:whole]


@given(st.lists(RECORDS, min_size=2, max_size=4), st.data())
def test_records_torn_in_the_middle_lose_no_other_line(
    records: list[Record], data: st.DataObject
) -> None:
    lines = [record.to_line().encode() for record in records]
    torn = data.draw(st.integers(0, len(lines[0]) - 1))
    content = b"\n".join([lines[0][:torn], *lines[1:]]) + b"\n"
    assert [parse_record(line) for line in parse_lines(content)] == records[1:]


@given(st.binary(max_size=200))
def test_records_of_any_bytes_are_read_without_an_error(content: bytes) -> None:
    for line in parse_lines(content):
        assert isinstance(line, dict)


@given(st.lists(st.integers(0, 300), unique=True).map(sorted))
def test_ranges_give_the_numbers_back(numbers: list[int]) -> None:
    ranges = parse_ranges(format_ranges(numbers))
    assert [number for part in ranges for number in part] == numbers


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([], ""), ([0], "0"), ([0, 1, 2], "0-2"), ([0, 2, 3, 9], "0,2-3,9")],
)
def test_ranges_are_as_short_as_can_be(numbers: list[int], text: str) -> None:
    assert format_ranges(numbers) == text


@given(
    st.lists(st.integers(0, 60), unique=True).map(sorted),
    st.lists(st.integers(0, 60), unique=True).map(sorted),
)
def test_numbers_within_ranges_are_those_that_both_have(
    numbers: list[int], others: list[int]
) -> None:
    found = list(list_within(numbers, find_ranges(others)))
    assert found == [number for number in numbers if number in others]


# --- after a power loss ---------------------------------------------------------------------

RECORD = build_line({"task": 0, "digest": "", "attempt": 1, "state": "succeeded"})


@pytest.mark.parametrize(
    "head",
    [start_line(), start_line(machine="other", boot="other"), start_line(machine=""), b""],
)
def test_trusted_size_is_all_where_no_boot_lies_between(head: bytes) -> None:
    content = head + RECORD
    assert trusted_size(content, HERE) == len(content)


@pytest.mark.parametrize("more", [{}, {"host": "\0"}], ids=["whole", "with a damaged host"])
def test_trusted_size_of_another_boot_is_what_was_synced(more: dict[str, str]) -> None:
    safe = start_line(boot="before", **more) + RECORD
    content = safe + build_line({"event": "synced", "upto": len(safe)}) + RECORD
    assert trusted_size(content, HERE) == len(safe)


def test_trusted_size_of_another_boot_without_a_sync_is_its_first_line() -> None:
    head = start_line(boot="before")
    assert trusted_size(head + RECORD, HERE) == len(head)


def test_trusted_size_of_a_shortened_file_is_no_more_than_it_has() -> None:
    content = start_line(boot="before") + build_line({"event": "synced", "upto": 10_000})
    assert trusted_size(content, HERE) == len(content)


def test_trusted_size_with_a_torn_sync_goes_by_the_one_before() -> None:
    safe = start_line(boot="before") + RECORD
    content = safe + build_line({"event": "synced", "upto": len(safe)}) + RECORD
    torn = build_line({"event": "synced", "upto": len(content)})[:-4]
    assert trusted_size(content + torn, HERE) == len(safe)


def test_trusted_size_goes_by_what_a_line_says_and_not_by_the_order_of_its_keys() -> None:
    safe = start_line(boot="before") + RECORD
    synced = b'{ "upto": %d, "event": "synced" }\n' % len(safe)
    assert trusted_size(safe + synced + RECORD, HERE) == len(safe)


def test_find_end_gives_the_last_and_no_torn_or_other_line() -> None:
    ends = [b'{"left":1,"event":"end"}\n', b'{"event":"end","left":2}\n']
    other = build_line({"task": 1, "state": "failed", "reason": "end", "event": "moved"})
    content = b'"end"}\n' + ends[0] + other + ends[1] + RECORD + b'{"event":"end"'
    assert find_end(content) == EndLine(left=2)
    assert find_end(content[: content.rindex(ends[1])]) == EndLine(left=1)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            StartLine(1, "ab", "m", "b", "h", 7, 1.5, 2, True, "m/b/h/1:2"),
            (
                b'{"event":"start","version":1,"token":"ab","machine":"m","boot":"b","host":"h",'
                b'"pid":7,"time":1.5,"slots":2,"take_over":true,"place":"m/b/h/1:2"}\n'
            ),
        ),
        (SyncedLine(80), b'{"event":"synced","upto":80}\n'),
        (MovedLine(3), b'{"event":"moved","moved":3}\n'),
        (
            EndLine(1.5, 0, 2.5, {"succeeded": [range(3), range(5, 6)]}),
            b'{"event":"end","time":1.5,"left":0,"seconds":2.5,"states":{"succeeded":"0-2,5"}}\n',
        ),
        (
            EndLine(1.5, 1, 0.0, {}, orphan=True),
            b'{"event":"end","time":1.5,"left":1,"seconds":0.0,"states":{},"orphan":true}\n',
        ),
    ],
)
def test_event_is_written_in_the_form_of_version_1(
    event: StartLine | SyncedLine | MovedLine | EndLine, line: bytes
) -> None:
    assert event.to_line() == line


def test_end_is_read_as_it_was_written() -> None:
    end = EndLine(1.5, 1, 2.5, {"succeeded": [range(3), range(5, 6)]}, orphan=True)
    assert find_end(end.to_line()) == end
    assert find_end(end.to_line(), below=5) is None


def test_trusted_size_without_a_machine_id_is_all() -> None:
    content = start_line(machine="", boot="before") + RECORD
    assert trusted_size(content, Machine("", "boot", "host")) == len(content)


# --- reading starts --------------------------------------------------------------------------


def test_list_starts_come_in_order_of_number_then_token(tmp_path: Path) -> None:
    store = DirectoryStore(str(tmp_path))
    keys = [RecordsKey(10, "aa"), RecordsKey(2, "bb"), RecordsKey(2, "ab"), RecordsKey(1, "ff")]
    for key in keys:
        store.create(records_key("7", key), b"")
    for other in ("closed", "1-aa.jsonl.0f0f.new", "x-aa.jsonl"):
        store.create(f".umpteen/records/7/{other}", b"")
    assert list_starts(store, "7") == sorted(keys)
    assert list_starts(store, "8") == []


def test_read_start_has_its_records_and_whether_it_ended(tmp_path: Path) -> None:
    store, key = DirectoryStore(str(tmp_path)), RecordsKey(1, "aa")
    ended = {"event": "end", "left": 0}
    store.create(records_key("1", key), start_line(token="aa") + RECORD + build_line(ended))
    start = read_start(store, "1", key, HERE)
    assert start.opened == StartLine(machine="machine", boot="boot")
    assert start.records == [Record(0, "", 1, "succeeded")]
    assert start.ended == EndLine(left=0)


def test_read_start_of_another_boot_leaves_out_what_was_not_synced(tmp_path: Path) -> None:
    store, key = DirectoryStore(str(tmp_path)), RecordsKey(1, "aa")
    content = start_line(boot="before") + RECORD + build_line({"event": "end"})
    store.create(records_key("1", key), content)
    start = read_start(store, "1", key, HERE)
    assert (start.records, start.ended) == ([], None)


# --- writing -----------------------------------------------------------------------------------


def test_records_file_is_never_opened_twice(tmp_path: Path) -> None:
    RecordsFile(str(tmp_path), "deep/1-aa.jsonl").close()
    with pytest.raises(FileExistsError):
        RecordsFile(str(tmp_path), "deep/1-aa.jsonl")


def test_records_file_that_was_full_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "1-aa.jsonl"
    file = RecordsFile(str(tmp_path), path.name)
    lines = [build_line({"task": number, "reason": "x" * 50}) for number in range(3)]
    file.append(lines[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(lines[0]) + 10, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            file.append(lines[1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.stat().st_size == file.size == len(lines[0]) + 10
    file.append(lines[2])
    file.close()
    assert path.read_bytes() == b"".join(lines)
    assert [json.loads(line)["task"] for line in path.read_text().splitlines()] == [0, 1, 2]
