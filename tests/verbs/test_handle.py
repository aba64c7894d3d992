from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.store import put_hand_in
from umpteen.history.history import History
from umpteen.store.address import open_store
from umpteen.store.directory import DirectoryStore
from umpteen.submission.read_back import read_back_settings
from umpteen.submission.submit import find_submitted
from umpteen.verbs.handle import JobHandle


@pytest.fixture
def handle(tmp_path: Path) -> JobHandle:
    store = open_store(str(tmp_path / "job"))
    assert isinstance(store, DirectoryStore)
    put_hand_in(store, 1, [{"command": f"echo {n}"} for n in range(3)], {"1": "0-2"})
    history = History(store)
    history.refresh()
    settings = read_back_settings(history, detach=True)
    return JobHandle(find_submitted(history, settings))


def test_job_that_was_found_is_idle_and_not_our_own(handle: JobHandle) -> None:
    assert (handle.is_idle, handle.is_own, handle.is_whole) == (True, False, True)
    assert (handle.summary.total, handle.summary.done, handle.ending) == (3, 0, None)


def test_interrupt_of_what_others_run_only_ends_the_watch(handle: JobHandle) -> None:
    assert not handle.is_interrupted
    assert handle.interrupt() is False
    assert handle.is_interrupted


def test_what_is_submitted_later_leaves_what_was_left_alone_at_first(handle: JobHandle) -> None:
    later = find_submitted(handle.history, handle.settings)
    summary = later.summary._replace(left_failed=7, running=2)
    handle.go_on_with(later._replace(batches=["4"], summary=summary))
    assert (handle.batches, handle.summary.running, handle.summary.left_failed) == (["4"], 2, 0)
    assert not handle.is_idle


def test_look_that_fails_is_over(handle: JobHandle) -> None:
    with handle.looking():
        assert handle.is_looking
    with pytest.raises(GeneratorExit), handle.looking():
        raise GeneratorExit
    assert not handle.is_looking
