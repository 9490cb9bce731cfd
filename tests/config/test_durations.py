"""Durations: what is understood, and how others are refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observatory_storage.config.durations import duration_text, parse_duration
from observatory_storage.errors import ValidationError


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("2w", timedelta(days=14)),
        ("90d", timedelta(days=90)),
        ("36h", timedelta(hours=36)),
        ("30m", timedelta(minutes=30)),
        ("45s", timedelta(seconds=45)),
        ("0s", timedelta(0)),
        ("1.5h", timedelta(minutes=90)),
        (" 1d 12h ", timedelta(hours=36)),
        ("1h30m0.5s", timedelta(hours=1, minutes=30, seconds=0.5)),
    ],
)
def test_text_with_units_is_a_duration(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


def test_a_timedelta_stays_as_it_is() -> None:
    given: Any = timedelta(seconds=5)
    assert parse_duration(given) == given


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("90", "must have a unit, such as 2w, 90d, 36h, 30m or 45s"),
        (90, "must have a unit"),
        ("", "must be a duration, such as"),
        ("90 days", "must be a duration, such as"),
        ("-1d", "must be a duration"),
        ("1d-", "must be a duration"),
        ("1M", "must be a duration"),
        ("٣d", "must be a duration"),
        (True, "must be a duration"),
        (None, "must be a duration"),
        (timedelta(-1), "must not be negative"),
        ("999999999999w", "must be a duration of less than 999999999 days"),
        ("999999999d" * 3, "must be a duration of less than"),
    ],
)
def test_other_values_are_refused_by_name(text: Any, rule: str) -> None:
    with pytest.raises(ValidationError, match=rule) as refused:
        parse_duration(text, "ahead")
    assert refused.value.field == "ahead"
    assert refused.value.value == text


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=99_999)))
def test_text_of_a_duration_is_read_back(duration: timedelta) -> None:
    assert parse_duration(duration_text(duration)) == duration
