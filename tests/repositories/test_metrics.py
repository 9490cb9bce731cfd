"""Definitions and points of metrics; cost and latency out of spans."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from observatory_storage import CopyWriter, NotFound, StoragePool, ValidationError
from observatory_storage.models import Metric, MetricDataPoint
from observatory_storage.repositories import MetricFilters, Page, TimeSeriesQuery
from tests.repositories.samples import (
    DAY,
    SECOND,
    START,
    Row,
    a_span,
    backwards,
    forwards,
    nanoseconds,
)

HOUR = timedelta(hours=1)


def metrics(pool: StoragePool) -> list[Metric]:
    """Twelve metrics: two services with six names, of which one has two units."""
    CopyWriter(pool).write_metrics(
        [
            {"name": name, "unit": unit, "metric_type": kind, "service_name": service}
            for service in ("api", "worker")
            for name, unit, kind in (
                ("requests", "1", "counter"),
                ("requests", "s", "histogram"),
                ("memory", "By", "gauge"),
                ("memory%", "By", "gauge"),
                ("queue", "1", "updowncounter"),
                ("size", "By", "summary"),
            )
        ]
    )
    with pool.unit_of_work() as uow:
        return list(uow.metrics.list())


@pytest.mark.parametrize(
    "conditions",
    [
        {},
        {"service_name": "api"},
        {"metric_type": "gauge"},
        {"name": "requests"},
        {"name": "mem%"},
        {"name": "memory%", "service_name": "worker"},
        {"name": "requests", "metric_type": "gauge"},
    ],
    ids=str,
)
def test_metrics_are_listed_by_name(pool: StoragePool, conditions: dict[str, Any]) -> None:
    rows = metrics(pool)
    assert len(rows) == 12
    expected = [
        row.id
        for row in sorted(rows, key=lambda row: (row.name, row.id))
        if all(getattr(row, column) == value for column, value in conditions.items())
    ]
    filters = MetricFilters(**conditions, limit=2)
    with pool.unit_of_work() as uow:

        def page_at(**cursor: Any) -> Page[Metric]:
            return uow.metrics.list(filters, **cursor)

        pages = forwards(page_at)
        assert [row.id for page in pages for row in page] == expected
        back = backwards(page_at, pages[-1])
        assert [row.id for page in back for row in page] == expected
        assert [row.id for row in uow.metrics.iterate(filters, 5)] == expected
        if set(conditions) == {"name"}:
            named = uow.metrics.get_by_name(conditions["name"])
            assert [row.id for row in named] == expected


def test_a_metric_is_found_by_id_and_name(pool: StoragePool) -> None:
    metric = metrics(pool)[0]
    with pool.unit_of_work() as uow:
        for form in (metric.id, metric.id.hex, str(metric.id)):
            assert uow.metrics.get(form).name == metric.name
        (one,) = uow.metrics.get_by_name("memory", service_name="api")
        assert (one.unit, one.service_name) == ("By", "api")
        assert uow.metrics.get_by_name("nothing") == []
        with pytest.raises(NotFound):
            uow.metrics.get(UUID(int=1))
        with pytest.raises(ValidationError, match="id"):
            uow.metrics.get("requests")
        with pytest.raises(ValidationError, match="name"):
            uow.metrics.get_by_name(None)  # type: ignore[arg-type]  # what is tried here


def points(pool: StoragePool) -> tuple[UUID, list[Row]]:
    metric_id = metrics(pool)[0].id
    rows: list[Row] = [
        {
            "metric_id": metric_id,
            "timestamp": START + day * DAY + second * SECOND,
            "value": float(day * 10 + second),
            "attributes": {"host": host},
        }
        for day in range(3)
        for second in range(3)
        for host in "ab"
    ]
    CopyWriter(pool).write_data_points(rows)
    return metric_id, rows


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (None, None),
        (START + DAY, None),
        (None, START + DAY),
        (START + SECOND, START + 2 * DAY + 2 * SECOND),
        (START, START),
    ],
)
def test_points_come_oldest_first(pool: StoragePool, start: Any, end: Any) -> None:
    metric_id, rows = points(pool)
    expected = sorted(
        row["value"]
        for row in rows
        if (start is None or row["timestamp"] >= start) and (end is None or row["timestamp"] < end)
    )
    with pool.unit_of_work() as uow:

        def page_at(**cursor: Any) -> Page[MetricDataPoint]:
            return uow.metrics.get_data_points(metric_id, start, end, limit=4, **cursor)

        pages = forwards(page_at)
        assert [row.value for page in pages for row in page] == expected
        back = backwards(page_at, pages[-1])
        assert [row.id for page in back for row in page] == [
            row.id for page in pages for row in page
        ]
        walked = uow.metrics.iterate_data_points(metric_id, start, end, 5)
        assert [row.value for row in walked] == expected
        stats = uow.metrics.get_stats(metric_id, start, end)
        assert stats.point_count == len(expected)
        assert stats.series_count == (2 if expected else 0)
        if expected:
            assert (stats.min_value, stats.max_value) == (expected[0], expected[-1])
            assert stats.last_value == expected[-1]
            assert stats.avg_value == pytest.approx(sum(expected) / len(expected))
        else:
            assert stats.min_value is stats.avg_value is stats.last_value is None
            assert stats.first_timestamp is stats.last_timestamp is None


def test_the_latest_point_is_the_newest(pool: StoragePool) -> None:
    metric_id, _ = points(pool)
    with pool.unit_of_work() as uow:
        latest = uow.metrics.get_latest_data_point(metric_id)
        assert latest is not None
        assert latest.value == 22.0
        assert latest.attributes["host"] in "ab"
        assert uow.metrics.get_latest_data_point(UUID(int=1)) is None


def test_points_are_asked_for_in_a_way_that_makes_sense(pool: StoragePool) -> None:
    with pool.unit_of_work() as uow:
        with pytest.raises(ValidationError, match="limit"):
            uow.metrics.get_data_points(UUID(int=1), limit=-1)
        with pytest.raises(ValidationError, match="end_time"):
            uow.metrics.get_data_points(UUID(int=1), START, START - SECOND)
        with pytest.raises(ValidationError, match="metric_id"):
            uow.metrics.get_latest_data_point("x")
        with pytest.raises(ValidationError, match="query"):
            uow.metrics.query_time_series("x")  # type: ignore[arg-type]  # what is tried here
        assert list(uow.metrics.get_data_points(UUID(int=1))) == []
        assert list(uow.metrics.list()) == []
        query = TimeSeriesQuery(UUID(int=1), START, START + DAY)
        with pytest.raises(NotFound):
            uow.metrics.query_time_series(query)


@pytest.mark.parametrize(
    "group_by",
    [("provider", "model"), ("model",), ("user_id", "environment"), ("agent_name",), ()],
    ids=str,
)
@pytest.mark.parametrize("width", [None, 86_400])
def test_cost_is_summed_by_group(
    shared_pool: StoragePool, spans: list[Row], group_by: tuple[str, ...], width: int | None
) -> None:
    start, end = START, START + 2 * DAY
    expected: dict[Any, list[Row]] = {}
    for row in spans:
        if start <= row["start_time"] < end and row["total_tokens"] is not None:
            day = row["start_time"].replace(hour=0, minute=0, second=0) if width else None
            expected.setdefault((day, *(row[name] for name in group_by)), []).append(row)
    with shared_pool.unit_of_work() as uow:
        found = uow.metrics.get_cost_summary(start, end, group_by=group_by, bucket_size_secs=width)
    assert {(one.timestamp, *one.group.values()) for one in found} == set(expected)
    for one in found:
        rows = expected[one.timestamp, *one.group.values()]
        assert one.span_count == len(rows)
        assert one.unpriced_span_count == 0
        assert one.total_tokens == sum(row["total_tokens"] for row in rows)
        assert one.total_cost_usd == sum((row["total_cost_usd"] for row in rows), Decimal())
        assert (one.prompt_tokens, one.prompt_cost_usd) == (None, None)
        assert one.model == one.group.get("model")
    for day in {one.timestamp for one in found}:
        costs = [one.total_cost_usd for one in found if one.timestamp == day]
        assert costs == sorted(costs, key=lambda cost: cost or Decimal(), reverse=True)


def test_unknown_costs_are_not_zero(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans(
        [
            a_span(1, 1, model="a", prompt_tokens=3, completion_tokens=4),
            a_span(1, 2, model="b", prompt_tokens=5, total_cost_usd=Decimal("0.10")),
            a_span(1, 3, model="b", total_tokens=0),
            a_span(1, 4, model="c"),
            a_span(1, 5, model="d", total_cost_usd=0),
        ]
    )
    with pool.unit_of_work() as uow:
        found = {s.model: s for s in uow.metrics.get_cost_summary(START, START + DAY)}
        assert list(found) == ["b", "d", "a"]
        assert uow.metrics.get_cost_summary(START + DAY, START + 2 * DAY) == []
        (total,) = uow.metrics.get_cost_summary(START, START + DAY, group_by=())
    assert (found["a"].total_cost_usd, found["a"].unpriced_span_count) == (None, 1)
    assert (found["a"].prompt_tokens, found["a"].total_tokens) == (3, 7)
    assert (found["b"].total_cost_usd, found["b"].unpriced_span_count) == (Decimal("0.10"), 1)
    assert (found["b"].span_count, found["b"].completion_tokens) == (2, None)
    assert found["d"].total_cost_usd == 0
    assert (total.total_cost_usd, total.span_count, total.group) == (Decimal("0.10"), 4, {})


def test_latencies_are_those_of_ended_spans_by_bucket(
    shared_pool: StoragePool, spans: list[Row]
) -> None:
    asked: list[dict[str, Any]] = [
        {},
        {"service_name": "api"},
        {"service_name": "api", "operation": "chat"},
    ]
    for conditions in asked:
        took: dict[Any, list[float]] = {}
        for row in spans:
            own = {"service_name": row["service_name"], "operation": row["name"]}
            duration = nanoseconds(row)
            if duration is not None and conditions.items() <= own.items():
                hour = row["start_time"].replace(minute=0, second=0)
                took.setdefault(hour, []).append(duration / 1000)
        with shared_pool.unit_of_work() as uow:
            found = uow.metrics.get_latency_percentiles(START - DAY, START + 9 * DAY, **conditions)
        assert [one.timestamp for one in found] == sorted(took)
        for one in found:
            values = sorted(took[one.timestamp])
            assert one.span_count == len(values)
            for q in (50, 90, 95, 99):
                at = q / 100 * (len(values) - 1)
                low = int(at)
                high = values[min(low + 1, len(values) - 1)]
                expected = values[low] + (high - values[low]) * (at - low)
                assert getattr(one, f"p{q}_us") == pytest.approx(expected)


def test_summaries_are_asked_for_in_a_way_that_makes_sense(shared_pool: StoragePool) -> None:
    with shared_pool.unit_of_work() as uow:
        summary, latency = uow.metrics.get_cost_summary, uow.metrics.get_latency_percentiles
        refused: list[tuple[str, Any, dict[str, Any]]] = [
            ("end_time", summary, {"end_time": START - SECOND}),
            ("end_time", latency, {"end_time": START - SECOND}),
            ("group_by", summary, {"group_by": ("name; DROP TABLE traces",)}),
            ("group_by", summary, {"group_by": "mode"}),
            ("bucket_size_secs", summary, {"bucket_size_secs": 0}),
            ("bucket_size_secs", latency, {"bucket_size_secs": -1}),
            ("operation", latency, {"operation": 5}),
        ]
        for field, method, given in refused:
            with pytest.raises(ValidationError) as error:
                method(**{"start_time": START, "end_time": START + HOUR, **given})
            assert error.value.field == field
        assert latency(START - 9 * DAY, START - 8 * DAY) == []
