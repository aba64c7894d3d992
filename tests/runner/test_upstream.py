"""Batches of other runners that ours wait for."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from tests.support.runner import end_batch, open_batch, put_runs
from umpteen.model.states import NUMBER_OF
from umpteen.runner.active_batch import ActiveBatch
from umpteen.runner.batch_start import Opener
from umpteen.runner.lease import Lease
from umpteen.runner.upstream import Upstream
from umpteen.store.directory import DirectoryStore
from umpteen.store.identity import identify
from umpteen.system.host import read_machine

OTHER = "aaaaaaaaaaaa"
SUCCEEDED, FAILED = NUMBER_OF["succeeded"], NUMBER_OF["failed"]


@pytest.fixture(autouse=True)
def batches(store: DirectoryStore) -> None:
    """Batch 1 with the tasks 3 and 4, which are a and b."""
    put_runs(store, "1", "ab", first=3)


@pytest.fixture
def other(store: DirectoryStore) -> Iterator[ActiveBatch]:
    """A runner of this machine that lives, and has batch 1."""
    lease = Lease.create(OTHER, identify(store), 1)
    active = open_batch(store, "1", OTHER)
    yield active
    lease.remove()


def make(store: DirectoryStore, within_s: float = -1.0) -> Upstream:
    """Upstream that waits so long for a batch that nobody has begun."""
    token = os.urandom(6).hex()
    opener = Opener(identify(store), store, token, read_machine())
    return Upstream(opener, time.monotonic() + within_s)


def test_upstream_waits_for_what_a_living_runner_has(
    store: DirectoryStore, other: ActiveBatch
) -> None:
    upstream = make(store)
    other.record_unrun([1], "failed", "")
    assert list(upstream.read({"1"})) == [(4, FAILED)]
    assert upstream.waited_for == {"1"}
    other.record_unrun([0], "succeeded", "")
    assert sorted(upstream.read({"1"})) == [(3, SUCCEEDED), (4, FAILED)]
    other.file.close()


def test_upstream_does_not_tell_of_an_attempt_that_another_follows(
    store: DirectoryStore, other: ActiveBatch
) -> None:
    record = other.build_record(0, "failed")._replace(retry=True)
    other.file.append(record.to_line().encode() + b"\n")
    assert list(make(store).read({"1"})) == []
    other.file.close()


def test_upstream_waits_no_more_for_a_start_that_has_ended(
    store: DirectoryStore, other: ActiveBatch
) -> None:
    upstream = make(store)
    end_batch(other, "succeeded", "failed")
    assert list(upstream.read({"1"})) == [(3, SUCCEEDED), (4, FAILED)]
    assert upstream.waited_for == set()


def test_upstream_waits_no_more_for_a_runner_that_is_dead(store: DirectoryStore) -> None:
    lease = Lease.create(OTHER, identify(store), 1)
    open_batch(store, "1", OTHER).file.close()
    os.close(lease.lock)
    upstream = make(store)
    assert list(upstream.read({"1"})) == []
    assert upstream.waited_for == set()


@pytest.mark.parametrize(("within_s", "waited_for"), [(60.0, {"1"}), (-1.0, set())])
def test_upstream_waits_a_while_for_a_batch_that_nobody_has_begun(
    store: DirectoryStore, within_s: float, waited_for: set[str]
) -> None:
    upstream = make(store, within_s)
    assert list(upstream.read({"1"})) == []
    assert upstream.waited_for == waited_for


@pytest.mark.usefixtures("other")
def test_upstream_waits_for_a_batch_that_a_living_runner_may_come_to(store: DirectoryStore) -> None:
    put_runs(store, "2", "c", first=5)
    upstream = make(store)
    assert list(upstream.read({"2"})) == []
    assert upstream.waited_for == {"2"}


def test_upstream_finds_the_names_of_their_tasks(store: DirectoryStore) -> None:
    upstream = make(store)
    assert upstream.find_name(4) is None
    list(upstream.read({"1"}))
    assert (upstream.find_name(4), upstream.find_name(9)) == ("b", None)
