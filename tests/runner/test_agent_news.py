"""What the agent on a host behind ssh says of records, and how much of it at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.store import put_batch, put_start
from umpteen.model.agent_messages import ALL, NewsRequest, RunnerReport, check_news, parse_news
from umpteen.model.record import Record
from umpteen.runner.agent_news import bring
from umpteen.store.directory import DirectoryStore
from umpteen.store.records import EndLine
from umpteen.system.host_agent import PART_BYTES


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    store = DirectoryStore(str(tmp_path))
    put_batch(store, "1", "0-1", ["a", "b"])
    return store


def report(token: str) -> RunnerReport:
    raise AssertionError(token)


def ask(store: DirectoryStore) -> NewsRequest:
    return NewsRequest(store.address, ["1"], {}, {}, [], ALL, PART_BYTES, 0.0)


def test_task_with_many_small_files_takes_no_more_than_a_message_may_have(
    store: DirectoryStore,
) -> None:
    content = b"x" * (1 << 20)
    for number in range(20):
        store.replace(f"a/results/{number}", content)
    put_start(store, "1", [dict(Record(0, "", 1, "succeeded").to_dict())])
    request = ask(store)
    found, body = bring(report, **request._asdict())
    assert len(body) <= 2 * PART_BYTES
    news = parse_news(json.loads(json.dumps(found)), body)
    check_news(news, request)
    (part,) = news.records
    (outputs,) = part.outputs
    assert len(outputs.files) == 20
    assert {file.size for file in outputs.files} == {1 << 20}
    assert 0 < sum(file.is_sent for file in outputs.files) < 5
    assert set(outputs.contents) == {content}


def test_line_that_is_longer_than_a_part_comes_whole(store: DirectoryStore) -> None:
    states = {"failed": [range(number, number + 1) for number in range(0, 200_000, 2)]}
    end = json.loads(EndLine(states=states).to_line())
    put_start(store, "1", [end])
    request, lines = ask(store), b""
    while True:
        found, body = bring(report, **request._asdict())
        (part,) = parse_news(json.loads(json.dumps(found)), body).records or (None,)
        if part is None:
            break
        assert part.offset == len(lines)
        lines += part.lines
        request.offsets[part.name] = len(lines)
    assert len(lines) > 1 << 18
    assert json.loads(lines.splitlines()[-1]) == end
