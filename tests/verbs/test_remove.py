from __future__ import annotations

import msgspec
import pytest

from umpteen.errors import InputError
from umpteen.query.status import build_unread
from umpteen.verbs.remove import list_below, refuse_running


def test_only_what_lies_below_the_address_is_removed() -> None:
    places = ["/runs/job/a", "/runs/job/b/c", "/runs/job2/a", "/elsewhere/a", "/runs/job"]
    assert list_below("/runs/job", places) == ["a", "b/c"]


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("running", "'job' is running"),
        ("unknown", "'job' may be running on another machine"),
    ],
)
def test_job_that_may_run_is_not_removed(state: str, said: str) -> None:
    status = msgspec.structs.replace(build_unread("job", "/runs/job", "damaged", ""), state=state)
    with pytest.raises(InputError, match=said) as raised:
        refuse_running(status, "job")
    assert raised.value.hint == "umpteen cancel job ends it first"


@pytest.mark.parametrize("state", ["succeeded", "failed", "unfinished", "removing", "empty"])
def test_job_that_nobody_runs_may_go(state: str) -> None:
    status = msgspec.structs.replace(build_unread("job", "/runs/job", "damaged", ""), state=state)
    refuse_running(status, "job")
