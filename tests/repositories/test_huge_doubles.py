"""Sums, means and percentiles of doubles that are as large as doubles can be."""

from __future__ import annotations

import itertools
import math
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from observatory_storage import CopyWriter, StoragePool, ingest_metrics
from observatory_storage.repositories.reading.aggregates import as_double, of_doubles, plus
from tests.repositories.samples import SECOND, START, Row

NUMBERS = itertools.count()
TOP = 1.7976931348623157e308


def a_metric(pool: StoragePool, metric_type: str, temporality: str, rows: list[Row]) -> UUID:
    name = f"huge {next(NUMBERS)}"
    metric = {"name": name, "metric_type": metric_type, "service_name": "s"}
    writer = CopyWriter(pool)
    writer.write_metrics([{**metric, "temporality": temporality}])
    with pool.unit_of_work() as uow:
        (found,) = uow.metrics.get_by_name(name)
    writer.write_data_points(
        {"metric_id": found.id, "timestamp": START + number * SECOND, **row}
        for number, row in enumerate(rows)
    )
    return found.id


def ask(pool: StoragePool, metric_id: UUID, aggregation: str, **fields: Any) -> list[Any]:
    with pool.unit_of_work() as uow:
        points = uow.metrics.query_time_series(
            metric_id=metric_id,
            start_time=START,
            end_time=START + 3600 * SECOND,
            aggregation=aggregation,
            bucket_size_secs=3600,
            **fields,
        )
    return [point.value for point in points]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1e308, 1e308], (math.inf, 1e308, 1e308)),
        ([-1e308, -1e308, -1e308], (-math.inf, -1e308, -1e308)),
        ([1e308, 1e308, -1e308], (1e308, 1e308 / 3, 1e308)),
        ([TOP, TOP], (math.inf, TOP, TOP)),
        ([TOP, -TOP], (0.0, 0.0, 0.0)),
        ([1e200, 3e200], (4e200, 2e200, 2e200)),  # whose squares overflow
        ([1e308, 5e-324], (1e308, 5e307, 5e307)),
        ([5e-324, 5e-324], (1e-323, 5e-324, 5e-324)),
        ([-0.0, -0.0], (0.0, 0.0, 0.0)),
        ([1.0, 2.0], (3.0, 1.5, 1.5)),
    ],
)
@pytest.mark.parametrize("metric_type", ["gauge", "updowncounter"])
def test_values_of_any_size_add_up(
    shared_pool: StoragePool,
    metric_type: str,
    values: list[float],
    expected: tuple[float, float, float],
) -> None:
    metric_id = a_metric(shared_pool, metric_type, "delta", [{"value": v} for v in values])
    for aggregation, value in zip(("sum", "avg", "p50"), expected, strict=True):
        assert ask(shared_pool, metric_id, aggregation) == [pytest.approx(value)]
    assert ask(shared_pool, metric_id, "max") == [max(values)]
    with shared_pool.unit_of_work() as uow:
        assert uow.metrics.get_stats(metric_id).avg_value == pytest.approx(expected[1])


def test_only_the_group_with_huge_values_is_infinite(shared_pool: StoragePool) -> None:
    rows: list[Row] = [
        {"value": value, "attributes": {"host": host}}
        for host, value in (("a", 1e308), ("b", 1.0), ("a", 1e308), ("b", 2.0))
    ]
    metric_id = a_metric(shared_pool, "gauge", "unspecified", rows)
    assert ask(shared_pool, metric_id, "sum", group_by="host") == [math.inf, 3.0]
    assert ask(shared_pool, metric_id, "avg", group_by="host") == [1e308, 1.5]


@pytest.mark.parametrize(
    ("totals", "increase"),
    [
        ([-1e308, 1e308], math.inf),
        ([-1e308, 1e308, 0.0], 1e308),
        ([1e308, -1e308], -math.inf),
        ([1e308, 1.5e308], 5e307),
    ],
)
def test_totals_of_any_size_have_an_increase(
    shared_pool: StoragePool, totals: list[float], increase: float
) -> None:
    rows = [{"value": total} for total in totals]
    metric_id = a_metric(shared_pool, "updowncounter", "cumulative", rows)
    assert ask(shared_pool, metric_id, "increase") == [pytest.approx(increase)]


def test_a_rate_is_finite_where_its_increase_is_not(shared_pool: StoragePool) -> None:
    rows = [{"value": total} for total in (-1.5e308, 1.5e308)]
    metric_id = a_metric(shared_pool, "updowncounter", "cumulative", rows)
    assert ask(shared_pool, metric_id, "rate") == [pytest.approx(1.5e308 / 1800)]


def test_observations_of_any_size_have_a_mean(shared_pool: StoragePool) -> None:
    bounds = {"bounds": [-1e308, 1e308], "counts": [0, 2, 0]}
    rows: list[Row] = [{"count": 2, "sum": 1e308, "buckets": bounds} for _ in range(3)]
    metric_id = a_metric(shared_pool, "histogram", "delta", rows)
    assert ask(shared_pool, metric_id, "sum") == [math.inf]
    assert ask(shared_pool, metric_id, "avg") == [pytest.approx(5e307)]
    assert ask(shared_pool, metric_id, "p50") == [pytest.approx(0.0)]
    quantiles = [{"quantile": 0.5, "value": 1e308}]
    rows = [{"count": 9, "sum": 1e308, "quantiles": quantiles, "start_timestamp": START - SECOND}]
    metric_id = a_metric(shared_pool, "summary", "unspecified", rows)
    assert ask(shared_pool, metric_id, "p50", fill="null") == [1e308]


def test_what_is_no_number_is_unknown(shared_pool: StoragePool) -> None:
    """The writers refuse such values, so the application itself has written them."""
    metric_id = a_metric(shared_pool, "gauge", "unspecified", [{"value": 1.0}, {"value": 2.0}])
    for value, mean in (("Infinity", math.inf), ("-Infinity", -math.inf), ("NaN", None)):
        with shared_pool.engine.begin() as connection:
            update = "UPDATE metric_data_points SET value = :value WHERE metric_id = :metric_id"
            where = {"metric_id": metric_id, "value": float(value), "first": START}
            connection.execute(text(f"{update} AND timestamp = :first"), where)
        assert ask(shared_pool, metric_id, "avg") == ([] if mean is None else [mean])
        assert ask(shared_pool, metric_id, "sum", fill="null") == [mean]
        with shared_pool.unit_of_work() as uow:
            assert uow.metrics.get_stats(metric_id).avg_value == mean
    assert of_doubles("avg", [math.inf, -math.inf]) is None
    assert as_double(plus(1e308, math.inf)) == math.inf


def test_quantiles_that_are_not_numbers_do_not_count(shared_pool: StoragePool) -> None:
    """Prometheus's clients report NaN when a summary has observed nothing for ten minutes."""
    nanos = str(int(START.timestamp()) * 10**9)
    points = [
        {
            "timeUnixNano": nanos,
            "startTimeUnixNano": str(int(nanos) - 10**9 - number),
            "count": "3",
            "sum": 6.0,
            "quantileValues": [{"quantile": 0.5, "value": value}, {"quantile": 0, "value": "NaN"}],
            "attributes": [{"key": "n", "value": {"intValue": number}}],
        }
        for number, value in enumerate(("NaN", 2.0))
    ]
    metric = {"name": "idle", "summary": {"dataPoints": points}}
    ingested = ingest_metrics(
        shared_pool, {"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}
    )
    assert not ingested.rejected
    with shared_pool.unit_of_work() as uow:
        (found,) = uow.metrics.get_by_name("idle")
    assert ask(shared_pool, found.id, "p50", group_by="n", fill="null") == [2.0]
    assert ask(shared_pool, found.id, "min") == []
