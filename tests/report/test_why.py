"""Why a task is as it is, in sentences."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from umpteen.model.record import Record
from umpteen.query.attempts import Attempt
from umpteen.query.why import Blocker, Why
from umpteen.report.why import render_why, why_to_dict

NOON_S = time.mktime((2020, 1, 2, 12, 0, 0, 0, 0, -1))


def make_attempt(state: str = "failed", **more: Any) -> Attempt:
    given: dict[str, Any] = {"exit_code": 3, "end_s": NOON_S, **more}
    return Attempt(Record(0, "", 1, state, **given), "runner", "n17")


def make_why(state: str = "failed", **more: Any) -> Why:
    given: dict[str, Any] = {
        "job": "job", "name": "t", "index": 0, "state": state, "command": "true",
        "is_dropped": False, "attempts": [], "start_s": 0.0, "slot": 0, "pid": 0, "host": "n17",
        "before": None, "blockers": [], "lacks": [], "batch": "", "executor": "", "runner": "",
        "is_alive": False, "behind": 0, **more,
    }  # fmt: skip
    return Why(**given)


def make_blocker(**more: Any) -> Blocker:
    given: dict[str, Any] = {
        "name": "prep", "state": "failed", "outcome": "succeeded", "by": [],
        "attempt": make_attempt(), "behind": 1, **more,
    }  # fmt: skip
    return Blocker(**given)


END = "failed (exit 3) at 2020-01-02 12:00 on n17"


@pytest.mark.parametrize(
    ("why", "sentence"),
    [
        (make_why(attempts=[make_attempt(seconds=2.0)]), f"t {END}, after 2 s."),
        (
            make_why("skipped", blockers=[make_blocker()]),
            f"t was skipped after prep, which {END}.",
        ),
        (
            make_why("skipped", blockers=[make_blocker(by=["mid"])]),
            f"t was skipped after mid, which was skipped because prep {END}.",
        ),
        (
            make_why("waiting", blockers=[make_blocker(state="waiting", is_canary=True)]),
            "t has not run: it waits for the canary prep, which has not ended.",
        ),
        (make_why("waiting"), "t has not run: it was never submitted."),
        (
            make_why("waiting", batch="1", is_alive=True),
            "t has not run: it waits for a free slot.",
        ),
        (make_why(is_dropped=True), "t is not in the job any more; what it left is kept."),
    ],
)
def test_why_is_one_sentence(why: Why, sentence: str) -> None:
    assert render_why(why)[0] == sentence


def test_why_of_what_timed_out_offers_a_longer_time() -> None:
    why = make_why("timed_out", attempts=[make_attempt("timed_out", exit_code=None, seconds=100)])
    assert "  umpteen retry job t --timeout 4m     gives it longer" in render_why(why)


def test_why_tells_what_is_lacking_changed_and_missing() -> None:
    why = make_why(
        attempts=[make_attempt()], before="false", lacks=["64 cpus (there are 2)"], missing="/x/out"
    )
    lines = render_why(why)
    assert "  changed   since attempt 1: false  →  true" in lines
    assert "  missing   /x/out" in lines
    assert "  lacks     it needs 64 cpus (there are 2)" in lines


def test_why_as_json_has_records_as_on_disk() -> None:
    why = make_why(attempts=[make_attempt()], blockers=[make_blocker()])
    shown = json.loads(json.dumps(why_to_dict(why)))
    assert shown["attempts"] == [
        {"task": 0, "digest": "", "attempt": 1, "state": "failed", "exit_code": 3,
         "end_s": NOON_S, "runner": "runner", "host": "n17"}
    ]  # fmt: skip
    assert shown["blockers"][0]["attempt"]["exit_code"] == 3
