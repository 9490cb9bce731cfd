"""Into which ranges a partition is split: they cover it, and they are few."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from observatory_storage.config import PartitionsConfig, StorageConfig
from observatory_storage.config.partition_settings import Width
from observatory_storage.layout import is_partition
from observatory_storage.lifecycle.run import Run
from observatory_storage.lifecycle.split_plan import MOST_RANGES, planned_ranges
from observatory_storage.pool import StoragePool
from observatory_storage.time_ranges import MAX, MIN, Range, named_gap

NOW = datetime(2026, 1, 20, 12, tzinfo=UTC)
DAY = timedelta(days=1)
MONTH = named_gap(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC))
YEAR = named_gap(datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))
PAST = Range(MIN, datetime(2000, 1, 1, tzinfo=UTC), "past")
FUTURE = Range(datetime(2100, 1, 1, tzinfo=UTC), MAX, "future")
WIDTHS: tuple[Width, ...] = ("hour", "day", "week", "month")


def a_run(width: Width) -> Run:
    config = StorageConfig(partitions=PartitionsConfig(logs=width))
    return Run(StoragePool(config, connect=False), NOW)


def suffixes(width: Width, held: Range, *moments: datetime) -> list[str]:
    buckets = Counter(moments)
    return [one.suffix for one in planned_ranges(a_run(width), "logs", held, buckets)]


def test_gaps_of_the_past_are_coarse_and_those_of_the_future_are_not() -> None:
    found = suffixes("day", MONTH, NOW - 18 * DAY, NOW - 3 * DAY, NOW + 10 * DAY)
    assert found == [
        "p20260101",
        "p20260102",
        "p20260103_20260117",
        "p20260117",
        "p20260118_20260120",
        *(f"p202601{day}" for day in range(20, 32)),
    ]


def test_a_week_that_leaves_the_month_is_days() -> None:
    found = suffixes("week", MONTH, *(NOW + day * DAY for day in range(-19, 12)))
    assert found == [
        *(f"p2026010{day}" for day in range(1, 5)),
        *(f"p2026w0{week}" for week in range(2, 5)),
        *(f"p202601{day}" for day in range(26, 32)),
    ]


def test_years_of_the_far_past_have_coarse_ranges_between_them() -> None:
    moments = [datetime(year, 1, 1, tzinfo=UTC) for year in (1, 1970, 1971, 1980)]
    assert suffixes("day", PAST, *moments) == [
        "past0002",
        "p0002_1970",
        "p1970",
        "p1971",
        "p1972_1980",
        "p1980",
        "p1981_2000",
    ]
    assert suffixes("day", FUTURE, datetime(9999, 1, 1, tzinfo=UTC)) == [
        "p2100_9999",
        "future9999",
    ]


@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=60)
@given(st.data(), st.sampled_from(WIDTHS), st.sampled_from([MONTH, YEAR, PAST, FUTURE]))
def test_the_ranges_cover_the_partition_and_are_few(
    data: st.DataObject, width: Width, held: Range
) -> None:
    lower = held.lower.replace(tzinfo=None)
    upper = (held.upper - timedelta(microseconds=1)).replace(tzinfo=None)
    moments = data.draw(
        st.dictionaries(
            st.datetimes(lower, upper, timezones=st.just(UTC)),
            st.integers(1, 1000),
            min_size=1,
            max_size=200,
        )
    )
    step = {"hour": 1, "day": 24}.get(width, 24)
    buckets: Counter[datetime] = Counter()
    for moment, rows in moments.items():
        truncated = moment.replace(minute=0, second=0, microsecond=0)
        buckets[truncated if step == 1 else truncated.replace(hour=0)] += rows
    ranges = planned_ranges(a_run(width), "logs", held, buckets)
    assert (ranges[0].lower, ranges[-1].upper) == (held.lower, held.upper)
    assert all(one.upper == other.lower for one, other in pairwise(ranges))
    assert all(one.lower < one.upper for one in ranges)
    assert len(ranges) <= MOST_RANGES + 4
    assert len({one.suffix for one in ranges}) == len(ranges)
    assert all(is_partition(f"logs_{one.suffix}") for one in ranges)
