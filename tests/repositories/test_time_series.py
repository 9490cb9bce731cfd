"""Gauges and counters over time against sums made in Python."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from observatory_storage import CopyWriter, NotFound, StoragePool, ValidationError
from tests.repositories.samples import DAY, SECOND, START, Row
from tests.repositories.series import MINUTE, a_metric, ask, points


def _p(q: float) -> Callable[[list[float]], float]:
    def percentile(values: list[float]) -> float:
        values = sorted(values)
        at = q * (len(values) - 1)
        low = int(at)
        return values[low] + (values[min(low + 1, len(values) - 1)] - values[low]) * (at - low)

    return percentile


OF_VALUES: dict[str, Callable[[list[float]], float]] = {
    "avg": statistics.fmean,
    "sum": sum,
    "min": min,
    "max": max,
    "count": len,
    "last": lambda values: values[-1],
    "p50": _p(0.5),
    "p90": _p(0.9),
    "p95": _p(0.95),
    "p99": _p(0.99),
}


@pytest.mark.parametrize("aggregation", OF_VALUES)
@pytest.mark.parametrize("group_by", [(), ("host",), ("host", "a.b")])
def test_a_gauge_is_aggregated_by_bucket_and_group(
    pool: StoragePool, aggregation: str, group_by: tuple[str, ...]
) -> None:
    rng = random.Random(3)
    metric_id = a_metric(pool, "gauge")
    rows: list[Row] = [
        {
            "metric_id": metric_id,
            "timestamp": START + at * SECOND,
            "value": rng.uniform(-5, 5),
            "attributes": rng.choice([{"host": "a"}, {"host": "b", "a.b": 1}, {}]),
        }
        for at in [-1, *rng.sample(range(600), 80), 600]
    ]
    CopyWriter(pool).write_data_points(rows)
    expected: dict[tuple[Any, ...], list[float]] = {}
    for row in sorted(rows, key=lambda row: row["timestamp"])[1:-1]:
        bucket = (row["timestamp"] - START) // MINUTE * 60
        group = [row["attributes"].get(key) for key in group_by]
        expected.setdefault((bucket, *group), []).append(row["value"])
    found = ask(pool, metric_id, aggregation, group_by=group_by)
    assert {(at, *group): value for at, value, *group in found} == {
        key: pytest.approx(OF_VALUES[aggregation](values)) for key, values in expected.items()
    }
    assert [at for at, *_ in found] == sorted(at for at, *_ in found)


def test_buckets_are_counted_from_1970_and_may_be_of_any_width(pool: StoragePool) -> None:
    metric_id = a_metric(pool, "gauge")
    CopyWriter(pool).write_data_points(points(metric_id, [(5, 1.0), (5.75, 2.0), (6, 3.0)]))
    assert ask(pool, metric_id, "sum", start_time=START + SECOND) == [(0, 6.0)]
    assert ask(pool, metric_id, "sum", bucket_size_secs=0.5) == [(5, 1.0), (5.5, 2.0), (6, 3.0)]
    day = ask(pool, metric_id, "sum", bucket_size_secs=86_400)
    assert day == [(-43_200, 6.0)]  # START is noon


def test_no_points_make_no_series(pool: StoragePool) -> None:
    for metric_type in ("gauge", "counter", "histogram", "summary"):
        metric_id = a_metric(pool, metric_type, temporality="cumulative")
        assert ask(pool, metric_id, "avg") == []
        assert ask(pool, metric_id, "avg", end_time=START) == []
    with pytest.raises(NotFound):
        ask(pool, UUID(int=1), "avg")


def test_a_delta_counter_adds_up(pool: StoragePool) -> None:
    metric_id = a_metric(pool, "counter", temporality="delta")
    CopyWriter(pool).write_data_points(points(metric_id, [(1, 3.0), (30, 4.0), (61, 5.0)]))
    assert ask(pool, metric_id, "sum") == [(0, 7.0), (60, 5.0)]
    assert ask(pool, metric_id, "increase") == [(0, 7.0), (60, 5.0)]
    assert ask(pool, metric_id, "rate") == [(0, 7.0 / 60), (60, 5.0 / 60)]
    assert ask(pool, metric_id, "count") == [(0, 2.0), (60, 1.0)]


def test_a_rate_divides_by_the_requested_part_of_the_bucket(pool: StoragePool) -> None:
    metric_id = a_metric(pool, "counter", temporality="delta")
    CopyWriter(pool).write_data_points(points(metric_id, [(50, 6.0), (65, 7.0)]))
    asked = {"start_time": START + 30 * SECOND, "end_time": START + 70 * SECOND}
    assert ask(pool, metric_id, "rate", **asked) == [(0, 6.0 / 30), (60, 7.0 / 10)]


@pytest.mark.parametrize("aggregation", ["sum", "increase"])
def test_a_cumulative_counter_reports_increases(pool: StoragePool, aggregation: str) -> None:
    metric_id = a_metric(pool, "counter", temporality="cumulative")
    begun = {"start_timestamp": START - DAY}
    CopyWriter(pool).write_data_points(
        # The total before the range is known: 90. It falls once, without saying so.
        points(metric_id, [(-7200, 50.0), (-5, 90.0), (5, 100.0), (70, 130.0), (80, 10.0)], **begun)
    )
    assert ask(pool, metric_id, aggregation) == [(0, 10.0), (60, 40.0)]
    assert ask(pool, metric_id, "rate") == [(0, 10.0 / 60), (60, 40.0 / 60)]
    assert ask(pool, metric_id, "last") == [(0, 100.0), (60, 10.0)]


def test_a_series_that_starts_within_the_range_counts_from_zero(pool: StoragePool) -> None:
    metric_id = a_metric(pool, "counter", temporality="cumulative")
    writer = CopyWriter(pool)
    writer.write_data_points(
        points(metric_id, [(5, 7.0), (65, 9.0)], start_timestamp=START, attributes={"h": "new"})
    )
    writer.write_data_points(
        points(metric_id, [(5, 70.0), (65, 72.0)], start_timestamp=START - DAY)
    )
    writer.write_data_points(points(metric_id, [(5, 700.0), (65, 701.0)], attributes={"h": "?"}))
    assert ask(pool, metric_id, "increase", group_by=("h",)) == [
        (0, 7.0, "new"),
        (60, 1.0, "?"),
        (60, 2.0, "new"),
        (60, 2.0, None),
    ]
    assert ask(pool, metric_id, "increase") == [(0, 7.0), (60, 5.0)]


def test_a_restart_that_exceeds_the_old_total_is_still_a_restart(pool: StoragePool) -> None:
    metric_id = a_metric(pool, "counter", temporality="cumulative")
    writer = CopyWriter(pool)
    writer.write_data_points(points(metric_id, [(1, 5.0)], start_timestamp=START))
    writer.write_data_points(
        points(metric_id, [(61, 8.0), (62, 9.0)], start_timestamp=START + MINUTE)
    )
    assert ask(pool, metric_id, "increase") == [(0, 5.0), (60, 9.0)]


def test_attributes_that_are_numbers_and_bools_make_different_series(pool: StoragePool) -> None:
    metric_id = a_metric(pool, "counter", temporality="cumulative")
    writer = CopyWriter(pool)
    for value, attribute in ((10.0, 1), (100.0, True), (1000.0, "1")):
        writer.write_data_points(
            points(
                metric_id,
                [(1, value), (2, value + 1)],
                start_timestamp=START,
                attributes={"k": attribute},
            )
        )
    found = ask(pool, metric_id, "increase", group_by=("k",))
    assert sorted((type(key).__name__, value) for _, value, key in found) == [
        ("bool", 101.0),
        ("int", 11.0),
        ("str", 1001.0),
    ]


def test_an_updowncounter_may_fall(pool: StoragePool) -> None:
    metric_id = a_metric(pool, "updowncounter", temporality="cumulative")
    CopyWriter(pool).write_data_points(
        points(metric_id, [(1, 5.0), (61, 2.0), (62, 4.0)], start_timestamp=START)
    )
    assert ask(pool, metric_id, "increase") == [(0, 5.0), (60, -1.0)]
    assert ask(pool, metric_id, "avg") == [(0, 5.0), (60, 3.0)]


@pytest.mark.parametrize("seed", range(5))
def test_the_increase_does_not_depend_on_temporality(pool: StoragePool, seed: int) -> None:
    rng = random.Random(seed)
    delta = a_metric(pool, "counter", temporality="delta")
    cumulative = a_metric(pool, "counter", temporality="cumulative", unit="1")
    rows = []
    for host in "ab":
        total, begun = 0.0, START - DAY
        for at in sorted(rng.sample(range(-50, 600), 40)):
            if rng.random() < 0.2:
                total, begun = 0.0, START + (at - 0.5) * SECOND
            more = float(rng.randrange(9))
            total += more
            of = {"timestamp": START + at * SECOND, "attributes": {"host": host}}
            rows.append({**of, "metric_id": delta, "value": more})
            rows.append({**of, "metric_id": cumulative, "value": total, "start_timestamp": begun})
        # Before the range, so that the total at its beginning is known.
        rows.append(
            {
                "metric_id": cumulative,
                "timestamp": START - DAY,
                "value": 0.0,
                "attributes": {"host": host},
                "start_timestamp": START - DAY,
            }
        )
    CopyWriter(pool).write_data_points(rows)
    for group_by in ((), ("host",)):
        for aggregation in ("increase", "rate", "sum"):
            one = ask(pool, delta, aggregation, group_by=group_by)
            assert one == ask(pool, cumulative, aggregation, group_by=group_by)


@pytest.mark.parametrize(
    ("metric_type", "aggregation"),
    [
        ("gauge", "rate"),
        ("gauge", "increase"),
        ("histogram", "last"),
        ("summary", "last"),
        ("histogram", "max"),
        ("exponential_histogram", "min"),
    ],
)
def test_an_aggregation_that_the_type_does_not_support_is_refused(
    pool: StoragePool, metric_type: str, aggregation: str
) -> None:
    metric_id = a_metric(pool, metric_type, temporality="cumulative")
    with pytest.raises(ValidationError, match="aggregation"):
        ask(pool, metric_id, aggregation)


def test_points_of_many_partitions_make_one_series(pool: StoragePool) -> None:
    metric_id = a_metric(pool, "counter", temporality="cumulative")
    days: list[tuple[float, Any]] = [(day * 86_400, float(day)) for day in range(6)]
    CopyWriter(pool).write_data_points(points(metric_id, days, start_timestamp=START - DAY))

    def bucket(day: int) -> datetime:
        return START + day * DAY - timedelta(hours=12)

    found = ask(
        pool,
        metric_id,
        "increase",
        start_time=START + DAY,
        end_time=START + 5 * DAY,
        bucket_size_secs=86_400,
    )
    assert found == [((bucket(day) - START) / SECOND, 1.0) for day in range(1, 5)]
