"""What a dry run says of arrays."""

from __future__ import annotations

import pytest

from umpteen.executors.slurm.preview import ArrayPreview, Limits, build_preview, count_seconds
from umpteen.job.slurm_options import parse_time

LIMITS = Limits(1001, 10_000, None)


def make_array(elements: int, **options: str) -> ArrayPreview:
    named = {key.replace("_", "-"): value for key, value in options.items()}
    return ArrayPreview(elements, {"cpus-per-task": "2", **named}, "#!/bin/bash\n")


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("90", 5400), ("90s", 90), ("1:30", 90), ("2:00:00", 7200), ("1-12", 129600),
     ("1-0:30", 88200), ("2h", 7200), ("unlimited", None)],
)  # fmt: skip
def test_time_limits_are_seconds(given: str, seconds: int | None) -> None:
    assert count_seconds(parse_time(given)) == seconds


def test_core_hours_are_the_most_that_can_be_taken() -> None:
    *_, total, _ = build_preview([make_array(100, time="30:00"), make_array(1, time="60")], LIMITS)
    assert total.facts == {"elements": 101, "core_hours": 102.0}
    assert total.text == "101 elements, at most 102 core-hours"


def test_core_hours_are_not_known_where_one_says_no_time() -> None:
    arrays = [make_array(100, time="30:00"), make_array(1)]
    assert build_preview(arrays, LIMITS)[-2].facts["core_hours"] is None
    assert build_preview(arrays, LIMITS, "1:00")[-2].facts["core_hours"] is not None


@pytest.mark.parametrize(
    ("limits", "binds"),
    [
        (LIMITS, None),
        (LIMITS._replace(array_size=100), "MaxArraySize"),
        (LIMITS._replace(job_count=149, submit_jobs=100), "MaxSubmitJobs,MaxJobCount"),
        (LIMITS._replace(job_count=150, submit_jobs=150), None),
    ],
)
def test_limit_that_binds_is_named(limits: Limits, binds: str | None) -> None:
    section = build_preview([make_array(100), make_array(50)], limits)[-1]
    assert section.facts["binds"] == binds
    assert ("none binds" in section.text) == (binds is None)
