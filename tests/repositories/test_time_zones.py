"""Days, months and the like of a time zone: against Python's clocks."""

from __future__ import annotations

import importlib.util
import itertools
import random
import zoneinfo
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from observatory_storage import CopyWriter, StoragePool, ValidationError
from observatory_storage.repositories import SpanFilters, TimeSeriesQuery
from observatory_storage.repositories.reading.time_buckets import (
    BucketSize,
    CalendarBuckets,
    buckets_of,
)
from observatory_storage.repositories.reading.time_zones import local_time
from tests.repositories.samples import DAY, SECOND, START, a_span, trace_key

HOUR = timedelta(hours=1)
TIME = sa.DateTime(timezone=True)
ZONES = [
    *("CET", "EET", "MET", "WET", "EST5EDT"),  # abbreviations to PostgreSQL
    *("America/Havana", "Atlantic/Azores"),  # two midnights
    *("America/Sao_Paulo", "Asia/Beirut", "Africa/Cairo"),  # none
    "America/Toronto",  # skipped the half hours around one, in 1919
    "America/St_Johns",  # went back to the day before
    *("Pacific/Apia", "Pacific/Kwajalein"),  # skipped a day
    *("Europe/Amsterdam", "Africa/Monrovia"),  # offsets of seconds
    *("Africa/Casablanca", "Africa/Freetown", "UTC"),
]
SIZES: dict[str | int, Any] = {
    "day": lambda local: local.date(),
    "month": lambda local: (local.year, local.month),
    "quarter": lambda local: (local.year, (local.month - 1) // 3),
    3 * 86_400: lambda local: (local - datetime(1970, 1, 5)).days // 3,  # noqa: DTZ001 - local
}


def starts_of(
    pool: StoragePool, buckets: CalendarBuckets, moments: Sequence[datetime], **bounds: Any
) -> list[datetime]:
    """The start of the bucket of each moment, as a statement of a repository finds it."""
    given = sa.func.unnest(sa.literal(moments, ARRAY(TIME)))
    rows = given.table_valued(sa.column("moment", TIME), with_ordinality="place").render_derived()
    column = buckets.column(rows.c.moment, bounds.get("start"), bounds.get("end"))
    with pool.unit_of_work() as uow:
        found = uow.session.scalars(sa.select(column).order_by(rows.c.place))
        return [buckets.read(value) for value in found]


def some_moments(name: str) -> list[datetime]:
    """Moments about which clocks change, and others."""
    rng, zone = random.Random(name), ZoneInfo(name)
    days = [datetime(1890, 1, 1, tzinfo=UTC) + n * 20 * DAY for n in range(150 * 18)]
    offsets = [day.astimezone(zone).utcoffset() for day in days]
    changes = [n for n, (one, other) in enumerate(itertools.pairwise(offsets)) if one != other]
    found = rng.sample(days, 5)
    for n in rng.sample(changes, min(len(changes), 12)):
        day = days[n]
        while day.astimezone(zone).utcoffset() == offsets[n]:
            day += DAY
        found += [day + timedelta(seconds=rng.randrange(-110_000, 90_000)) for _ in range(3)]
    return found


@pytest.mark.parametrize("name", ZONES)
def test_a_bucket_begins_when_clocks_first_show_its_days(
    shared_pool: StoragePool, name: str
) -> None:
    zone = ZoneInfo(name)
    moments = some_moments(name)
    for size, label in SIZES.items():
        buckets = buckets_of(size, name)  # type: ignore[arg-type]  # one of the names
        assert isinstance(buckets, CalendarBuckets)
        bounds = {"start": min(moments), "end": max(moments)} if size == "month" else {}
        for moment, start in zip(
            moments, starts_of(shared_pool, buckets, moments, **bounds), strict=True
        ):
            assert start <= moment
            shown = label(local_time(zone, moment))
            assert label(local_time(zone, start)) == shown, (size, moment, start)
            earlier = [start - SECOND, *(start - hours * HOUR for hours in (0.5, 1, 2, 12, 23, 25))]
            assert all(label(local_time(zone, one)) != shown for one in earlier), (size, start)
            assert buckets.floor(moment) == start
            assert buckets.end(start) > start


@pytest.mark.parametrize(
    ("name", "day", "hours"),
    [
        ("America/Havana", datetime(2025, 11, 2, 4, tzinfo=UTC), 25),
        ("Africa/Cairo", datetime(2024, 4, 25, 22, tzinfo=UTC), 23),
        ("America/Sao_Paulo", datetime(2018, 11, 4, 3, tzinfo=UTC), 23),
        ("America/Toronto", datetime(1919, 3, 31, 4, 30, tzinfo=UTC), 23.5),
        ("Pacific/Apia", datetime(2011, 12, 29, 10, tzinfo=UTC), 24),
        ("CET", datetime(2025, 6, 30, 22, tzinfo=UTC), 24),
    ],
)
def test_days_are_as_long_as_clocks_have_them(name: str, day: datetime, hours: float) -> None:
    buckets = buckets_of("day", name)
    assert buckets.floor(day) == day
    assert buckets.floor(day - timedelta.resolution) < day
    assert buckets.end(day) == day + hours * HOUR
    assert buckets.count(day, day + hours * HOUR) == 1


@pytest.fixture(scope="module")
def one_of_each(shared_pool: StoragePool) -> StoragePool:
    """A model call, a log record and a data point at START."""
    writer = CopyWriter(shared_pool)
    writer.write_spans([a_span(1, 1, model="m", total_tokens=1)])
    writer.write_logs([{"timestamp": START, "service_name": "service"}])
    writer.write_metrics([{"name": "m", "metric_type": "gauge", "service_name": "s"}])
    with shared_pool.unit_of_work() as uow:
        (metric,) = uow.metrics.get_by_name("m")
    writer.write_data_points([{"metric_id": metric.id, "timestamp": START, "value": 1.0}])
    return shared_pool


@pytest.mark.parametrize(
    ("size", "first"),
    [("week", (2025, 12, 29)), ("quarter", (2026, 1, 1)), ("year", (2026, 1, 1))],
)
@pytest.mark.parametrize("name", [None, "utc", "asia/TOKYO"])
def test_all_questions_have_the_same_buckets(
    one_of_each: StoragePool, size: BucketSize, first: tuple[int, int, int], name: str | None
) -> None:
    asked: dict[str, Any] = {"bucket_size_secs": size, "time_zone": name}
    bounds: dict[str, Any] = {"start_time": START - DAY, "end_time": START + DAY}
    with one_of_each.unit_of_work() as uow:
        (metric,) = uow.metrics.get_by_name("m")
        found: list[Any] = [
            *uow.traces.get_stats(**asked),
            *uow.traces.get_stats(SpanFilters(**bounds), **asked),
            *uow.metrics.get_cost_summary(**asked),
            *uow.metrics.get_latency_percentiles(**asked),
            *uow.metrics.query_time_series(metric_id=metric.id, **bounds, **asked),
            *uow.logs.count_by_level(**asked),
        ]
    zone = ZoneInfo("Asia/Tokyo" if name == "asia/TOKYO" else "UTC")
    assert [one.timestamp for one in found] == [datetime(*first, tzinfo=zone)] * 6
    assert {one.timestamp.utcoffset() for one in found} == {timedelta(0)}


def test_rows_of_absurd_times_have_buckets_too(shared_pool: StoragePool) -> None:
    edges = [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
    for name in ("America/New_York", "Asia/Tokyo"):
        for size in ("day", "week", "year"):
            buckets = buckets_of(size, name)
            assert isinstance(buckets, CalendarBuckets)
            early, late = starts_of(shared_pool, buckets, edges)
            assert (early.year, late.year) == (1, 9999)


@pytest.fixture
def python_without_zones() -> Iterator[None]:
    before = zoneinfo.TZPATH
    zoneinfo.reset_tzpath(to=())
    ZoneInfo.clear_cache()
    yield
    zoneinfo.reset_tzpath(to=before)
    ZoneInfo.clear_cache()


@pytest.mark.usefixtures("python_without_zones")
@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("America/Havana", datetime(2025, 11, 2, 4, tzinfo=UTC)),
        ("africa/cairo", datetime(2024, 4, 25, 22, tzinfo=UTC)),
        ("CET", datetime(2025, 6, 30, 22, tzinfo=UTC)),
    ],
)
def test_the_server_knows_zones_where_python_has_none(
    shared_pool: StoragePool, name: str, first: datetime
) -> None:
    moments = [first, first + HOUR, first + 2 * HOUR]
    for size in ("day", 86_400):
        buckets = buckets_of(size, name)
        assert isinstance(buckets, CalendarBuckets)
        assert starts_of(shared_pool, buckets, moments) == [first] * 3
    nowhere = CalendarBuckets(":Mars/Olympus", days=1)
    with pytest.raises(ValidationError, match="Mars"):
        starts_of(shared_pool, nowhere, moments)


@pytest.mark.usefixtures("python_without_zones")
@pytest.mark.skipif(importlib.util.find_spec("tzdata") is not None, reason="Python has zones")
def test_what_only_python_can_answer_says_what_to_install() -> None:
    with pytest.raises(ValidationError, match="tzdata") as refused:
        TimeSeriesQuery(trace_key(1), START, START + DAY, "avg", "day", time_zone="Asia/Tokyo")
    assert refused.value.field == "time_zone"


@pytest.mark.parametrize("size", ["hour", "MONTH", "", "months"])
def test_an_unknown_unit_is_refused(shared_pool: StoragePool, size: Any) -> None:
    with shared_pool.unit_of_work() as uow:
        for ask in (uow.traces.get_stats, uow.metrics.get_latency_percentiles):
            with pytest.raises(ValidationError, match="day, week, month, quarter, year") as refused:
                ask(bucket_size_secs=size)
            assert refused.value.field == "bucket_size_secs"
