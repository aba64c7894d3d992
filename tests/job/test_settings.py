"""Who set what, and durations."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umpteen.errors import SettingsError
from umpteen.job.settings import DEFAULTS, Setting, merge_settings
from umpteen.units import parse_duration_s


def test_merge_settings_of_nothing_are_the_defaults() -> None:
    settings = merge_settings()
    assert settings.slots == 0
    assert settings.grace_s == 10
    assert set(settings.sources.values()) == {"default"}
    assert set(settings.sources) == set(DEFAULTS)


def test_merge_settings_later_layers_win_and_are_named() -> None:
    file = {"slots": Setting(2, "job.yaml"), "grace_s": Setting(5.0, "job.yaml")}
    settings = merge_settings(file, {"slots": Setting(3, "run.yaml")}, {})
    assert (settings.slots, settings.grace_s) == (3, 5.0)
    assert settings.sources["slots"] == "run.yaml"
    assert settings.sources["grace_s"] == "job.yaml"


def test_merge_settings_change_no_layer() -> None:
    layer = {"slots": Setting(2, "a")}
    merge_settings(layer, {"slots": Setting(3, "b")})
    assert layer == {"slots": Setting(2, "a")}


def test_merge_settings_another_executor_does_not_get_the_options_of_the_first() -> None:
    file = {
        "executor": Setting("slurm", "job.yaml"),
        "executor_options": Setting({"partition": "gpu"}, "job.yaml"),
    }
    settings = merge_settings(file, {"executor": Setting("local", "--executor")})
    assert settings.executor_options == {}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("1.5h", 5400),
        ("15 m", 900),
        (" 2h ", 7200),
        ("1d", 86400),
        ("5:00", 300),
        ("12:00:00", 43200),
        ("1-12:00:00", 129600),
        (0.5, 0.5),
        (90, 90),
    ],
)
def test_parse_duration_reads_what_people_write(text: str | float, seconds: float) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "0", "0s", "-5", "soon", "5x", "1h30", "nan", "inf", "1e3", ":"]
)
def test_parse_duration_refuses_what_is_none(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_duration_s(text)
    assert repr(text) in caught.value.message
    assert "2h" in (caught.value.hint or "")


@given(st.text())
def test_parse_duration_of_any_text_is_positive_or_refused(text: str) -> None:
    seconds = 1.0
    with contextlib.suppress(SettingsError):
        seconds = parse_duration_s(text)
    assert 0 < seconds < float("inf")


@given(st.integers(0, 400), st.integers(0, 23), st.integers(0, 59), st.integers(1, 59))
def test_parse_duration_with_days_adds_up(days: int, hours: int, minutes: int, rest: int) -> None:
    text = f"{days}-{hours:02}:{minutes:02}:{rest:02}"
    assert parse_duration_s(text) == days * 86400 + hours * 3600 + minutes * 60 + rest
