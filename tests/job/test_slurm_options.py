"""What a user says of Slurm becomes options of sbatch, or is refused."""

from __future__ import annotations

from typing import Any

import pytest

from umpteen.errors import SettingsError
from umpteen.job.slurm_options import lay_over, parse_options


def test_options_are_those_of_sbatch_with_either_spelling() -> None:
    given = {
        "partition": "main", "cpus_per_task": 4, "mail-type": ["END", "FAIL"], "exclusive": True,
        "hold": False, "account": None, "nice": 100, "mem": "4G",
    }  # fmt: skip
    assert parse_options(given) == {
        "partition": "main", "cpus-per-task": "4", "mail-type": "END,FAIL", "exclusive": "",
        "nice": "100", "mem": "4G",
    }  # fmt: skip


def test_flag_may_be_written_as_text() -> None:
    assert parse_options({"hold": "true", "requeue": "false"}) == {"hold": ""}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"time": "5"}, {"mem": "1G", "no-requeue": "", "gres": "gpu:1", "time": "5"}),
        ({"mem-per-cpu": "2G"}, {"no-requeue": "", "gres": "gpu:1", "mem-per-cpu": "2G"}),
        ({"gpus": "a:2", "requeue": ""}, {"mem": "1G", "gpus": "a:2", "requeue": ""}),
    ],
)
def test_options_laid_over_others_leave_none_that_says_otherwise(
    more: dict[str, str], expected: dict[str, str]
) -> None:
    given = {"mem": "1G", "no-requeue": "", "gres": "gpu:1"}
    assert lay_over(given, more) == expected
    assert lay_over(given, {}) == given


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ({"partytion": "x"}, "no option 'partytion'", "did you mean 'partition'?"),
        ({"nodes": 2}, "sets 'nodes' itself", "each batch runs on one node"),
        ({"array": "1-3"}, "sets 'array' itself", "become an array"),
        ({"output": "x"}, "sets 'output' itself", "is kept"),
        ({"partition": True}, "'partition' of the executor 'slurm' needs a value", ""),
        ({"requeue": "yes"}, "'requeue' of the executor 'slurm' is true or false", ""),
        ({"comment": "a\n#SBATCH --uid=0"}, "must be one line of text", ""),
        ({"gres": {"gpu": 1}}, "must be text or a number", ""),
        ({"mem": "lots"}, "'lots' of 'mem' is no memory", "write 500M or 4G"),
        ({"time": "1:2:3:4"}, "'1:2:3:4' of 'time' is no time", "10:00 (ten minutes)"),
        ({"time_min": "soon"}, "'soon' of 'time-min' is no time", "10:00 (ten minutes)"),
    ],
)
def test_options_that_cannot_be_are_refused(given: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_options(given)
    assert message in str(caught.value)
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (10, "10"), ("10", "10"), ("10:00", "10:00"), ("2:00:00", "2:00:00"), ("1-12", "1-12"),
        ("1-12:30:00", "1-12:30:00"), ("UNLIMITED", "UNLIMITED"), ("2h", "120:00"),
        ("90s", "1:30"), ("1d", "1440:00"),
    ],
)  # fmt: skip
def test_time_is_of_slurm_or_has_a_unit(given: str | int, expected: str) -> None:
    assert parse_options({"time": given}) == {"time": expected}
