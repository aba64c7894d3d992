"""What is said around a run, and Ctrl-C while it lasts."""

from __future__ import annotations

import os
import signal

import pytest

from tests.query.test_status import make_status
from umpteen.query.failures import Failure
from umpteen.query.unrun import UnrunCause, UnrunGroup
from umpteen.report.run import build_ending, build_goes_on, render_goes_on
from umpteen.report.signals import Waiting, stop_signals
from umpteen.report.status import failure_to_dict, render_unrun
from umpteen.system.stop_signals import Stops


def test_ending_has_notes_by_what_they_are_about() -> None:
    status = make_status(counts={"succeeded": 2, "failed": 1, "waiting": 1}, state="failed")
    ending = build_ending(status, "job", 1.0, 1.0, is_whole=False, left_behind=["merge"])
    assert [note.label for note in ending.notes] == ["results", "behind", "again", "again"]
    assert ending.render()[1] == "  results   /store"
    assert ending.notes[1].text == "merge     umpteen retry job merge"


def test_ending_of_a_job_that_goes_on_says_how_to_watch_and_to_end_it() -> None:
    status = make_status()
    assert build_goes_on(status, "job").render() == render_goes_on(status, "job")
    assert render_goes_on(status, "job")[1] == "  watch     umpteen collect job"


def test_unrun_groups_beyond_five_are_one_line() -> None:
    groups = [UnrunGroup(9 - n, "skipped", UnrunCause(str(n), "failed", ""), []) for n in range(7)]
    lines = render_unrun(groups)
    assert (len(lines), lines[-1]) == (6, " 7 more skipped or cancelled for other reasons")


def test_failure_as_json_has_the_fields_that_all_verbs_show() -> None:
    failure = Failure(1, "t", "failed", "exit 1", "exit 1", "last", has_stderr=True)
    assert failure_to_dict(failure) == {
        "index": 1, "name": "t", "state": "failed", "reason": "exit 1", "last_line": "last"
    }  # fmt: skip


def test_signals_are_counted_and_handled_as_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.count == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_waiting_ends_once_the_user_asked_to_stop(capsys: pytest.CaptureFixture[str]) -> None:
    stop = Stops()
    waiting = Waiting(stop, is_shown=True)
    waiting.tell("waits for a worker")
    assert capsys.readouterr().err == ""  # not at once
    stop.add(signal.SIGINT, None)
    with pytest.raises(KeyboardInterrupt):
        waiting.tell("waits for a worker")
