"""Ranges of time: which one a moment prefers, what is left when it is taken, and their names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observatory_storage.config.partition_settings import Width
from observatory_storage.layout import is_partition
from observatory_storage.time_ranges import (
    MAX,
    MIN,
    Range,
    candidates,
    free_range,
    named_gap,
    natural_range,
)

NOW = datetime(2026, 1, 31, 15, 20, tzinfo=UTC)
DAY = timedelta(days=1)
WIDTHS: tuple[Width, ...] = ("hour", "day", "week", "month")

moments = st.one_of(
    st.datetimes(timezones=st.just(UTC)),
    # Close to now, so that ranges of all widths meet.
    st.timedeltas(min_value=-500 * DAY, max_value=500 * DAY).map(NOW.__add__),
)


def utc(year: int, month: int = 1, day: int = 1, *parts: int) -> datetime:
    hour, minute, second, microsecond, *_ = (*parts, 0, 0, 0, 0)
    return datetime(year, month, day, hour, minute, second, microsecond, UTC)


@pytest.mark.parametrize(
    ("width", "suffixes"),
    [
        ("hour", ["p2026013115"]),
        ("day", ["p20260131", "p2026013115"]),
        ("week", ["p2026w05", "p20260131", "p2026013115"]),
        ("month", ["p202601", "p20260131", "p2026013115"]),
    ],
)
def test_near_now_a_range_has_the_configured_width(width: Width, suffixes: list[str]) -> None:
    assert [each.suffix for each in candidates(NOW, NOW, width)] == suffixes


@pytest.mark.parametrize(
    ("width", "near", "far"),
    [
        ("hour", -7 * DAY, -8 * DAY),
        ("hour", 8 * DAY, 9 * DAY),
        ("day", 35 * DAY, 36 * DAY),
        ("week", -366 * DAY, -367 * DAY),
        ("month", 732 * DAY, 733 * DAY),
    ],
)
def test_further_off_it_is_coarser(width: Width, near: timedelta, far: timedelta) -> None:
    spans = []
    for distance in (near, far):
        found = natural_range(NOW + distance, NOW, width)
        spans.append(found.upper - found.lower)
    assert spans[0] < spans[1]


def test_the_width_holds_as_far_as_partitions_are_made_ahead() -> None:
    assert natural_range(NOW + 60 * DAY, NOW, "day").suffix == "p202604"
    assert natural_range(NOW + 60 * DAY, NOW, "day", 60 * DAY).suffix == "p20260401"


def test_weeks_begin_on_monday_and_have_the_iso_year() -> None:
    assert natural_range(utc(2027, 1, 3, 23), NOW + 330 * DAY, "week") == Range(
        utc(2026, 12, 28), utc(2027, 1, 4), "p2026w53"
    )


@pytest.mark.parametrize(
    ("lower", "upper", "suffix"),
    [
        (MIN, utc(2000), "past"),
        (MIN, utc(1970), "past1970"),
        (utc(2100), MAX, "future"),
        (utc(2554, 3), MAX, "future255403"),
        (utc(1971), utc(2000), "p1971_2000"),
        (utc(1970), utc(1971), "p1970"),
        (utc(2026, 1, 31), utc(2026, 2, 1), "p20260131"),
        (utc(2026, 1, 26), utc(2026, 2, 2), "p2026w05"),
        (utc(2026, 1, 3), utc(2026, 2, 1), "p20260103_202602"),
        (utc(2026, 1, 3, 5, 30), utc(2026, 1, 3, 6), "p202601030530_2026010306"),
        (
            utc(2026, 1, 3, 5, 30, 0, 1),
            utc(2026, 1, 3, 5, 30, 9),
            "p20260103053000000001_20260103053009",
        ),
    ],
)
def test_a_gap_is_named_by_its_ends(lower: datetime, upper: datetime, suffix: str) -> None:
    assert named_gap(lower, upper) == Range(lower, upper, suffix)
    assert is_partition(f"metric_data_points_{suffix}")
    assert is_partition(f"metric_data_points_{suffix}_2")
    assert not is_partition(f"metric_data_points_{suffix}_2_2")


@pytest.mark.parametrize("name", ["logs", "logs_p", "logs_p20261", "logs_old", "traces_p2026"])
def test_other_tables_are_no_partitions(name: str) -> None:
    assert not is_partition(name)


def test_days_end_at_a_month_that_was_made_earlier() -> None:
    january = Range(utc(2026, 1, 1), utc(2026, 2, 1))
    # The week from January 26 to February 1 overlaps it.
    assert free_range(utc(2026, 2, 1, 12), NOW, "week", [january]).suffix == "p20260201"
    assert free_range(utc(2026, 2, 2, 12), NOW, "week", [january]).suffix == "p2026w06"
    assert free_range(utc(2026, 2, 2, 12), NOW, "month", [january]).suffix == "p202602"


def test_what_nothing_fits_into_is_filled_as_it_is() -> None:
    half = [Range(utc(2026, 1, 31, 15, 0), utc(2026, 1, 31, 15, 10, 0, 5))]
    assert free_range(NOW, NOW, "day", half).suffix == "p20260131151000000005_2026013116"
    # A part of the far past was dropped.
    parts = [Range(MIN, utc(1970)), Range(utc(1980), utc(2000))]
    assert free_range(utc(1975), NOW, "day", parts).suffix == "p1970_1980"


@given(st.lists(st.tuples(moments, st.sampled_from(WIDTHS), moments), max_size=30))
def test_every_moment_finds_a_range_that_overlaps_no_other(
    given: list[tuple[datetime, Width, datetime]],
) -> None:
    taken: list[Range] = []
    for moment, width, now in given:
        if any(other.holds(moment) for other in taken):
            continue
        found = free_range(moment, now, width, taken)
        assert found.holds(moment)
        assert not any(found.overlaps(other) for other in taken)
        assert found.suffix not in {other.suffix for other in taken}
        assert is_partition(f"metric_data_points_{found.suffix}")
        assert len(f"metric_data_points_{found.suffix}_2") <= 63
        taken = sorted([*taken, found])
