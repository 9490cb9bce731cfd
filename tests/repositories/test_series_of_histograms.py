"""Histograms and summaries over time: counts, sums, extremes and percentiles."""

from __future__ import annotations

from typing import Any

import pytest

from observatory_storage import CopyWriter, StoragePool
from tests.repositories.samples import SECOND, START, Row
from tests.repositories.series import a_metric, ask


def a_histogram(at: float, values: list[float], **columns: Any) -> Row:
    counts = [sum(low < v <= high for v in values) for low, high in ((-1, 10), (10, 20), (20, 999))]
    return {
        "timestamp": START + at * SECOND,
        "count": len(values),
        "sum": sum(values),
        "buckets": {"bounds": [10, 20], "counts": counts},
        **columns,
    }


@pytest.mark.parametrize("temporality", ["delta", "cumulative"])
def test_a_histogram_aggregates_the_observations(pool: StoragePool, temporality: str) -> None:
    metric_id = a_metric(pool, "histogram", temporality=temporality)
    observed = [(1, [1.0, 12.0]), (30, [14.0, 16.0]), (61, [18.0, 2.0]), (62, [])]
    seen: list[float] = []
    rows = []
    for at, values in observed:
        seen = values if temporality == "delta" else seen + values
        rows.append(a_histogram(at, seen, metric_id=metric_id, start_timestamp=START))
    CopyWriter(pool).write_data_points(rows)
    assert ask(pool, metric_id, "count") == [(0, 4.0), (60, 2.0)]
    assert ask(pool, metric_id, "increase") == [(0, 4.0), (60, 2.0)]
    assert ask(pool, metric_id, "rate") == [(0, 4.0 / 60), (60, 2.0 / 60)]
    assert ask(pool, metric_id, "sum") == [(0, 43.0), (60, 20.0)]
    assert ask(pool, metric_id, "avg") == [(0, 43.0 / 4), (60, 10.0)]
    # One of four up to 10, three more up to 20; then one and one.
    assert ask(pool, metric_id, "p50") == [
        (0, pytest.approx(10 + 10 / 3)),
        (60, pytest.approx(10)),
    ]


def test_the_extremes_of_a_delta_histogram_bound_its_percentiles(pool: StoragePool) -> None:
    metric_id = a_metric(pool, "histogram", temporality="delta")
    CopyWriter(pool).write_data_points(
        [
            a_histogram(1, [30.0, 50.0], metric_id=metric_id, min=30.0, max=50.0),
            a_histogram(2, [40.0], metric_id=metric_id, min=40.0, max=40.0),
        ]
    )
    assert ask(pool, metric_id, "min") == [(0, 30.0)]
    assert ask(pool, metric_id, "max") == [(0, 50.0)]
    assert ask(pool, metric_id, "p50") == [(0, pytest.approx(40.0))]


@pytest.mark.parametrize("aggregation", ["count", "rate", "sum", "avg", "p50"])
def test_a_histogram_whose_start_is_unknown_only_starts_the_count(
    pool: StoragePool, aggregation: str
) -> None:
    metric_id = a_metric(pool, "histogram", temporality="cumulative")
    rows = [
        a_histogram(at, values, metric_id=metric_id, start_timestamp=START + SECOND)
        for at, values in ((1, [1.0] * 100), (2, [1.0] * 100 + [12.0] * 2))
    ]
    CopyWriter(pool).write_data_points(rows)
    expected = {"count": 2.0, "rate": 2.0 / 60, "sum": 24.0, "avg": 12.0, "p50": 15.0}
    assert ask(pool, metric_id, aggregation) == [(0, pytest.approx(expected[aggregation]))]


@pytest.mark.parametrize(
    "buckets", [None, {"bounds": [], "counts": [2]}, {"bounds": [], "counts": []}]
)
def test_a_histogram_without_bounds_has_no_percentiles(
    pool: StoragePool, buckets: dict[str, Any] | None
) -> None:
    metric_id = a_metric(pool, "histogram", temporality="delta")
    at = {"metric_id": metric_id, "timestamp": START}
    row = {**at, "count": 2, "sum": 30.0, "min": 10.0, "max": 20.0, "buckets": buckets}
    CopyWriter(pool).write_data_points([row])
    assert ask(pool, metric_id, "p50") == []
    once = {"bucket_size_secs": 600, "fill": "null"}
    assert ask(pool, metric_id, "p99", **once) == [(0, None)]
    values = {"count": 2.0, "increase": 2.0, "sum": 30.0, "avg": 15.0, "min": 10.0, "max": 20.0}
    for aggregation, value in values.items():
        assert ask(pool, metric_id, aggregation) == [(0, value)]
    # Of further observations in buckets it is unknown where these two are among them.
    CopyWriter(pool).write_data_points(
        [a_histogram(1, [1.0], metric_id=metric_id), a_histogram(61, [5.0], metric_id=metric_id)]
    )
    assert ask(pool, metric_id, "p50") == [(60, 5.0)]


def test_extremes_bound_the_percentiles_only_if_every_point_has_them(pool: StoragePool) -> None:
    metric_id = a_metric(pool, "histogram", temporality="delta")
    CopyWriter(pool).write_data_points(
        [
            a_histogram(1, [12.0] * 9, metric_id=metric_id, min=12.0, max=12.0),
            a_histogram(2, [1.0] * 91, metric_id=metric_id),
        ]
    )
    assert ask(pool, metric_id, "min") == [(0, 12.0)]
    assert ask(pool, metric_id, "p50") == [(0, pytest.approx(500 / 91))]


def test_an_exponential_histogram_has_percentiles(pool: StoragePool) -> None:
    metric_id = a_metric(pool, "exponential_histogram", temporality="delta")
    buckets = {
        "scale": 0,
        "zero_count": 2,
        "zero_threshold": 0.0,
        "positive": {"offset": 2, "counts": [4]},
        "negative": {"offset": 0, "counts": []},
    }
    row = {"metric_id": metric_id, "timestamp": START, "count": 6, "sum": 24.0, "buckets": buckets}
    CopyWriter(pool).write_data_points([row])
    # The first of four in (4, 8], on a logarithmic scale.
    assert ask(pool, metric_id, "p50") == [(0, pytest.approx(4 * 2**0.25))]


def test_a_summary_reports_its_own_percentiles(pool: StoragePool) -> None:
    metric_id = a_metric(pool, "summary")

    def a_summary(at: float, count: int, median: float, **columns: Any) -> Row:
        quantiles = [(0.0, median / 2), (0.5, median), (1.0, median * 2)]
        return {
            "metric_id": metric_id,
            "timestamp": START + at * SECOND,
            "start_timestamp": START,
            "count": count,
            "sum": count * median,
            "quantiles": [{"quantile": q, "value": value} for q, value in quantiles],
            **columns,
        }

    CopyWriter(pool).write_data_points([a_summary(1, 10, 4.0), a_summary(2, 40, 8.0)])
    assert ask(pool, metric_id, "count") == [(0, 40.0)]
    assert ask(pool, metric_id, "sum") == [(0, 320.0)]
    assert ask(pool, metric_id, "avg") == [(0, 8.0)]
    assert ask(pool, metric_id, "p50") == [(0, pytest.approx((10 * 4 + 30 * 8) / 40))]
    assert ask(pool, metric_id, "min") == [(0, 2.0)]
    assert ask(pool, metric_id, "max") == [(0, 16.0)]
    assert ask(pool, metric_id, "p99") == []
