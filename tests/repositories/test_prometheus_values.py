"""Values that Prometheus's own tests state, where its definitions and ours agree.

The tables hold inputs and values of promql/promqltest/testdata in github.com/prometheus/prometheus
(Apache-2.0), of functions.test, histograms.test, native_histograms.test and start_timestamps.test.
`docs/metrics.md` lists where the definitions differ.
"""

from __future__ import annotations

import itertools
import math
from datetime import timedelta
from typing import Any

import pytest

from observatory_storage import CopyWriter, StoragePool
from observatory_storage.repositories.metrics.distributions import cells_of, quantile_of
from tests.repositories.samples import START, Row

MINUTE = timedelta(minutes=1)
NUMBERS = itertools.count()


def series(pool: StoragePool, metric_type: str, rows: list[Row], aggregation: str) -> float | None:
    """The value over 60 minutes from START on."""
    name = f"prometheus {next(NUMBERS)}"
    writer = CopyWriter(pool)
    metric = {"name": name, "metric_type": metric_type, "service_name": "prometheus"}
    writer.write_metrics([{**metric, "temporality": "cumulative"}])
    with pool.unit_of_work() as uow:
        (found,) = uow.metrics.get_by_name(name)
        writer.write_data_points([{"metric_id": found.id, **row} for row in rows])
        points = uow.metrics.query_time_series(
            metric_id=found.id,
            start_time=START,
            end_time=START + 60 * MINUTE,
            aggregation=aggregation,
            bucket_size_secs=3600,
        )
    return points[0].value if points else None


def progression(first: float, step: float, count: int) -> list[float]:
    """Prometheus's notation: first+stepxcount."""
    return [first + step * number for number in range(count + 1)]


# The samples of a window, five minutes apart; what Prometheus states as their increase, and by how
# much it extrapolates to the edges of the window. We do not extrapolate.
COUNTERS: dict[str, tuple[list[float], float, float]] = {
    "0+10x10": (progression(10, 10, 9), 100, 50 / 45),
    "0+18x5 0+18x5": ((progression(0, 18, 5) * 2)[1:11], 160, 50 / 45),
    "10+10x10": (progression(20, 10, 9), 100, 50 / 45),
    "1+10x10": (progression(11, 10, 9), 100, 50 / 45),
    "0+27x4 0+27x5": (progression(27, 27, 3) + progression(0, 27, 5), 0.08 * 3000, 50 / 45),
    "0+80x10": (progression(80, 80, 9), 0.26666666666666666 * 3000, 50 / 45),
    "offset, a": ([80, 90], 0.03333333333333333 * 600, 10 / 5),
    "offset, b": ([160, 180], 0.06666666666666667 * 600, 10 / 5),
    "reset at the end": ([90, 0], 0, 6 / 5),
}


@pytest.mark.parametrize(("values", "stated", "extrapolated"), COUNTERS.values(), ids=COUNTERS)
def test_an_increase_is_that_of_prometheus(
    shared_pool: StoragePool, values: list[float], stated: float, extrapolated: float
) -> None:
    rows = [{"timestamp": START + 5 * n * MINUTE, "value": v} for n, v in enumerate(values)]
    increase = stated / extrapolated
    assert series(shared_pool, "counter", rows, "increase") == pytest.approx(increase)
    assert series(shared_pool, "counter", rows, "rate") == pytest.approx(increase / 3600)


def test_a_total_that_falls_is_taken_for_one_that_was_zero_between(
    shared_pool: StoragePool,
) -> None:
    """Prometheus states 7 for 0 1 2 3 2 3 4: it takes 3 2 for 3 0 1 2."""
    rows = [
        {"timestamp": START + 5 * n * MINUTE, "value": value, "start_timestamp": START}
        for n, value in enumerate([1, 2, 3, 2, 3, 4], start=1)
    ]
    assert series(shared_pool, "counter", rows, "increase") == 7


# (minute, start in minutes, value) of each sample, and the increase.
STARTS: dict[str, tuple[list[tuple[float, float | None, float]], float]] = {
    "unknown start, ST=0": ([(2, None, 1), (3, 2, 1)], 0),
    "unknown start, ST=T": ([(2, 2, 1), (3, 2, 1)], 0),
    "delta points": ([(2, 1, 1), (3, 2, 1)], 2),
    "deltas, ST of OpenTelemetry": ([(n, n - 1, 60) for n in range(1, 6)], 300),
    "deltas, ST = T - 1 ms": ([(n, n - 1 / 60_000, 60) for n in range(1, 6)], 300),
    "cumulative, one start": ([(n, 1.5, 60 * (n - 1)) for n in range(2, 5)], 180),
    "anchored at the start": ([(3, 2.5, 2), (4, 2.5, 3)], 3),
    "resets by start and by value": ([(2, 1, 5), (3, 2 + 59 / 60, 5), (4, 2 + 59 / 60, 2)], 12),
}


@pytest.mark.parametrize(("samples", "increase"), STARTS.values(), ids=STARTS)
@pytest.mark.parametrize("metric_type", ["counter", "histogram"])
def test_starts_count_as_in_prometheus(
    shared_pool: StoragePool,
    metric_type: str,
    samples: list[tuple[float, float | None, float]],
    increase: float,
) -> None:
    rows = []
    for minute, start, value in samples:
        row: Row = {"timestamp": START + minute * MINUTE, "value": value}
        if start is not None:
            row["start_timestamp"] = START + start * MINUTE
        if metric_type == "histogram":
            row |= {"value": None, "count": int(value), "sum": value}
        rows.append(row)
    assert series(shared_pool, metric_type, rows, "increase") == pytest.approx(increase)


INF = math.inf
# The counts of buckets up to each bound, and the quantiles.
CLASSIC: dict[str, tuple[dict[float, float], dict[float, float]]] = {
    "positive": (
        {0: 0, 0.1: 50, 0.2: 70, 1: 110, INF: 110},
        {0: 0, 0.25: 0.055, 0.5: 0.125, 0.75: 0.45, 1: 1},
    ),
    "negative": (
        {-0.25: 0, -0.2: 10, -0.1: 20, 0.3: 20, INF: 20},
        {0: -0.25, 0.25: -0.225, 0.5: -0.2, 0.75: -0.15, 1: -0.1},
    ),
    "open at both ends, positive": (
        {0.1: 50, 0.2: 70, 1: 110, INF: 120},
        {0: 0, 0.2: 0.048, 0.5: 0.15, 0.8: 0.72, 1: 1},
    ),
    "open at both ends, negative": (
        {-0.2: 10, -0.1: 20, 0.3: 20, INF: 30},
        {0: -0.2, 0.2: -0.2, 0.5: -0.15, 0.8: 0.3, 1: 0.3},
    ),
    "in the middle of each bucket": (
        {0: 0, 2: 10, 4: 20, 6: 30, INF: 30},
        {1 / 6: 1, 0.5: 3, 5 / 6: 5},
    ),
    "sum of all": ({0.1: 100, 0.2: 190, INF: 250}, {0.3: 0.075, 0.5: 0.1277777777777778}),
    "ins1": ({0.1: 4, 0.2: 7, INF: 10}, {0.3: 0.075, 0.5: 0.1333333333}),
    "ins2": ({0.1: 6, 0.2: 12, INF: 15}, {0.3: 0.075, 0.5: 0.125}),
    "job1": ({0.1: 3, 0.2: 8, INF: 10}, {0.3: 0.1, 0.5: 0.14}),
    "job2": ({0.1: 7, 0.2: 11, INF: 15}, {0.3: 0.0642857142857143, 0.5: 0.1125}),
    "job1 ins1": ({0.1: 1, 0.2: 3, INF: 4}, {0.3: 0.11, 0.5: 0.15}),
    "job1 ins2": ({0.1: 2, 0.2: 5, INF: 6}, {0.3: 0.09, 0.5: 0.1333333333333333}),
    "job2 ins1": ({0.1: 3, 0.2: 4, INF: 6}, {0.3: 0.06, 0.5: 0.1}),
    "job2 ins2": ({0.1: 4, 0.2: 7, INF: 9}, {0.3: 0.0675, 0.5: 0.1166666666666667}),
    "custom buckets": ({5: 1, 10: 3, INF: 4}, {0.5: 7.5}),
    "all above": ({0.1: 1, 0.2: 1, INF: 4}, {0.75: 0.2, 1: 0.2}),
}


@pytest.mark.parametrize(("counts", "quantiles"), CLASSIC.values(), ids=CLASSIC)
def test_a_quantile_of_a_classic_histogram_is_that_of_prometheus(
    counts: dict[float, float], quantiles: dict[float, float]
) -> None:
    below = [0, *counts.values()]
    each = [later - earlier for earlier, later in itertools.pairwise(below)]
    cells = cells_of({"bounds": [bound for bound in counts if bound < INF], "counts": each})
    assert {q: quantile_of(cells, q) for q in quantiles} == pytest.approx(quantiles)


def native(
    schema: int, positive: list[int], negative: list[int], zero: int = 0, width: float = 0.001
) -> dict[str, Any]:
    """A native histogram, whose bucket 0 ends at 1; OpenTelemetry's begins there."""
    return {
        "scale": schema,
        "zero_count": zero,
        "zero_threshold": width,
        "positive": {"offset": -1, "counts": positive},
        "negative": {"offset": -1, "counts": negative},
    }


ROOT = math.sqrt(2)
NATIVE: dict[str, tuple[dict[str, Any], dict[float, float]]] = {
    "one": (native(0, [1, 2, 1], []), {0.5: ROOT}),
    "of one bucket": (native(0, [1, 12, 1], []), {0.5: ROOT}),
    "negative": (native(0, [], [1, 2, 1]), {0.5: -ROOT}),
    "zero only": (native(0, [], [], 1, 0.5), {0.5: 0}),
    "zero and positive": (
        native(0, [2, 3, 0, 1, 4], [], 2),
        {
            1: 16,
            0.99: 15.67072476139083,
            0.9: 12.99603834169977,
            0.6: 4.594793419988138,
            0.5: 1.5874010519681994,
            0.1: 0.0006,
            0.08333333333333333: 0.0005,
            0: 0,
        },
    ),
    "zero and negative": (
        native(0, [], [2, 3, 0, 1, 4], 2),
        {
            1: 0,
            0.99: -0.00006,
            0.9: -0.0006,
            0.5: -1.5874010519681996,
            0.1: -12.996038341699768,
            0: -16,
        },
    ),
    "zero, positive and negative": (
        native(0, [2, 3, 0, 1, 4], [2, 3, 0, 1, 4], 4),
        {
            1: 16,
            0.99: 15.34822590920423,
            0.9: 10.556063286183155,
            0.7: 1.2030250360821164,
            0.55: 0.0006,
            0.5: 0,
            0.45: -0.0006,
            0.3: -1.2030250360821169,
            0.1: -10.556063286183155,
            0.01: -15.34822590920423,
            0: -16,
        },
    ),
    "schema -1": (native(-1, [0, 5], []), {0.5: 2}),
    "schema 0": (native(0, [0, 5], []), {0.5: ROOT}),
    "schema 1": (native(1, [0, 5], []), {0.5: 1.189207115}),
    "schema -1, further": (native(-1, [0, 0, 5], []), {0.5: 8}),
    "schema 0, further": (native(0, [0, 0, 5], []), {0.5: 2.82842712474619}),
    "schema 1, further": (native(1, [0, 0, 5], []), {0.5: 1.6817928305074292}),
    "schema -1, negative": (native(-1, [], [0, 5]), {0.5: -2}),
    "schema 1, negative": (native(1, [], [0, 5]), {0.5: -1.189207115}),
    "schema -1, negative, further": (native(-1, [], [0, 0, 5]), {0.5: -8}),
    "schema 1, negative, further": (native(1, [], [0, 0, 5]), {0.5: -1.6817928305074292}),
}


@pytest.mark.parametrize(("buckets", "quantiles"), NATIVE.values(), ids=NATIVE)
def test_a_quantile_of_a_native_histogram_is_that_of_prometheus(
    buckets: dict[str, Any], quantiles: dict[float, float]
) -> None:
    cells = cells_of(buckets)
    found = {q: quantile_of(cells, q) for q in quantiles}
    assert found == pytest.approx(quantiles, abs=1e-9)


def test_a_stored_native_histogram_has_the_percentiles_of_prometheus(
    shared_pool: StoragePool,
) -> None:
    """A rate of the buckets: what was before is subtracted."""
    before, after = native(0, [1, 2, 1], []), native(0, [3, 5, 1, 1, 4], [], 2)
    rows = [
        {"timestamp": START + n * MINUTE, "count": count, "sum": 100.0 * count, "buckets": buckets}
        for n, (count, buckets) in enumerate([(4, before), (16, after)])
    ]
    for aggregation, value in (("p99", 15.67072476139083), ("p50", 1.5874010519681994)):
        found = series(shared_pool, "exponential_histogram", rows, aggregation)
        assert found == pytest.approx(value)
    assert series(shared_pool, "exponential_histogram", rows, "avg") == 100


def test_custom_buckets_with_a_reset_increase_as_in_prometheus(shared_pool: StoragePool) -> None:
    """Prometheus states 27 of 15 minutes, extrapolated from 10: 18 were added."""
    totals = [
        ([1, 2, 5, 2], 36.0),
        ([3, 0, 2, 1], 16.0),
        ([9, 0, 3, 6], 61.0),
    ]
    rows = [
        {
            "timestamp": START + 5 * n * MINUTE,
            "count": sum(counts),
            "sum": total,
            "buckets": {"bounds": [1, 2, 4, 8], "counts": [*counts, 0]},
        }
        for n, (counts, total) in enumerate(totals)
    ]
    assert series(shared_pool, "histogram", rows, "increase") == pytest.approx(27 * 10 / 15)
    assert series(shared_pool, "histogram", rows, "sum") == pytest.approx(91.5 * 10 / 15)
    counts = [13.5, 0, 4.5, 9]
    expected = quantile_of(cells_of({"bounds": [1, 2, 4, 8], "counts": [*counts, 0]}), 0.9)
    assert series(shared_pool, "histogram", rows, "p90") == pytest.approx(expected)
