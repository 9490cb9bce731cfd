"""One time series over all metrics of a name: each instance of a service reports its own."""

from __future__ import annotations

import math
from typing import Any

import pytest

from observatory_storage import CopyWriter, Not, NotFound, Prefix, StoragePool, ValidationError
from observatory_storage.repositories import TimeSeriesQuery
from tests import citus
from tests.repositories.plans import plans_of
from tests.repositories.samples import SECOND, START, Row

INSTANCES = [("gateway", "a"), ("gateway", "b"), ("worker", "c")]
# (second, total) of each instance: a's total falls, b began within the range, c long before.
TOTALS = {
    "a": (-100, [(-30, 50.0), (30, 60.0), (90, 5.0)]),
    "b": (10, [(30, 7.0), (90, 9.0)]),
    "c": (-9000, [(-20, 1000.0), (30, 1001.0), (90, 1003.0)]),
}


def write(
    pool: StoragePool, name: str, metric_type: str, rows: dict[str, list[Row]], **of: Any
) -> None:
    writer = CopyWriter(pool)
    metrics = [
        {
            "name": name,
            "metric_type": metric_type,
            "service_name": service,
            "resource_attributes": {"service.instance.id": instance},
            **of,
        }
        for service, instance in INSTANCES
        if instance in rows
    ]
    writer.write_metrics(metrics)
    with pool.unit_of_work() as uow:
        for metric in uow.metrics.get_by_name(name):
            own = rows[metric.resource_attributes["service.instance.id"]]
            writer.write_data_points([{"metric_id": metric.id, **row} for row in own])


@pytest.fixture(scope="module")
def named(shared_pool: StoragePool) -> StoragePool:
    counters, histograms, gauges = {}, {}, {}
    for instance, (start, totals) in TOTALS.items():
        of = {"start_timestamp": START + start * SECOND, "attributes": {"route": "/"}}
        at = [{**of, "timestamp": START + second * SECOND} for second, _ in totals]
        counters[instance] = [
            {**row, "value": total} for row, (_, total) in zip(at, totals, strict=True)
        ]
        histograms[instance] = [
            {
                **row,
                "count": int(total),
                "sum": 2 * total,
                "buckets": {"bounds": [1, 4], "counts": [0, int(total), 0]},
            }
            for row, (_, total) in zip(at, totals, strict=True)
        ]
        gauges[instance] = [
            {
                **row,
                "value": float(len(instance) + ord(instance)),
                "attributes": {"n": ord(instance)},
            }
            for row in at
        ]
    write(shared_pool, "requests", "counter", counters, temporality="cumulative", unit="1")
    write(shared_pool, "duration", "histogram", histograms, temporality="cumulative")
    write(shared_pool, "load", "gauge", gauges)
    return shared_pool


def ask(pool: StoragePool, aggregation: str, **fields: Any) -> list[tuple[Any, ...]]:
    given: Row = {"start_time": START, "end_time": START + 120 * SECOND, **fields}
    with pool.unit_of_work() as uow:
        points = uow.metrics.query_time_series(aggregation=aggregation, **given)
    return [
        ((point.timestamp - START) / SECOND, point.value, *point.group.values()) for point in points
    ]


@pytest.mark.parametrize("aggregation", ["increase", "sum"])
def test_increases_of_all_instances_add_up(named: StoragePool, aggregation: str) -> None:
    assert ask(named, aggregation, name="requests") == [(0, 18.0), (60, 9.0)]
    assert ask(named, aggregation, name="requests", service_name="gateway") == [
        (0, 17.0),
        (60, 7.0),
    ]
    others = ask(named, aggregation, name="requests", service_name=Not("gateway"))
    assert others == [(0, 1.0), (60, 2.0)]


def test_instances_and_services_are_groups(named: StoragePool) -> None:
    by_instance = ask(named, "increase", name="requests", group_by="service.instance.id")
    assert by_instance == [
        (0, 10.0, "a"),
        (0, 7.0, "b"),
        (0, 1.0, "c"),
        (60, 5.0, "a"),
        (60, 2.0, "b"),
        (60, 2.0, "c"),
    ]
    assert ask(named, "rate", name="requests", group_by=("service_name", "route")) == [
        (0, 17 / 60, "gateway", "/"),
        (0, 1 / 60, "worker", "/"),
        (60, 7 / 60, "gateway", "/"),
        (60, 2 / 60, "worker", "/"),
    ]
    assert ask(named, "avg", name="load", group_by="service_name", bucket_size_secs=120) == [
        (0, 98.5, "gateway"),
        (0, 100.0, "worker"),
    ]
    assert ask(named, "max", name="load", group_by="n", bucket_size_secs=120) == [
        (0, 98.0, 97),
        (0, 99.0, 98),
        (0, 100.0, 99),
    ]


def test_percentiles_are_of_all_observations(named: StoragePool) -> None:
    assert ask(named, "count", name="duration") == [(0, 18.0), (60, 9.0)]
    assert ask(named, "avg", name="duration") == [(0, 2.0), (60, 2.0)]
    assert ask(named, "p50", name="duration") == [(0, 2.5), (60, 2.5)]
    assert ask(named, "p50", name="load", bucket_size_secs=120) == [(0, 99.0)]


def test_both_kinds_of_histograms_add_up(shared_pool: StoragePool) -> None:
    exponential = {"scale": 0, "zero_count": 0, "positive": {"offset": 0, "counts": [0, 10]}}
    explicit = {"bounds": [2, 4, 8], "counts": [0, 0, 10, 0]}
    of = {"timestamp": START, "count": 10, "sum": 50.0}
    write(shared_pool, "both", "histogram", {"a": [{**of, "buckets": explicit}]})
    writer = CopyWriter(shared_pool)
    metric = {"name": "both", "metric_type": "exponential_histogram", "service_name": "other"}
    writer.write_metrics([metric])
    with shared_pool.unit_of_work() as uow:
        (found,) = uow.metrics.get_by_name("both", service_name="other")
    writer.write_data_points([{**of, "metric_id": found.id, "buckets": exponential}])
    # Those of (2, 4] on a logarithmic scale, those of (4, 8] linearly.
    assert ask(shared_pool, "p50", name="both") == [(0, pytest.approx(4.0))]
    assert ask(shared_pool, "p90", name="both") == [(0, pytest.approx(7.2))]
    wide = {"scale": -1, "zero_count": 0, "positive": {"offset": 0, "counts": [0, 10]}}
    writer.write_data_points(
        [{**of, "metric_id": found.id, "buckets": wide, "attributes": {"n": 1}}]
    )
    # Of 30, those of (4, 16] and of (4, 8] overlap: 10 + 10 / 4 * (x - 4) + 10 * log4(x / 4) = 15.
    ((_, median),) = ask(shared_pool, "p50", name="both")
    assert 2.5 * (median - 4) + 10 * math.log(median / 4, 4) == pytest.approx(5)


@pytest.mark.parametrize(
    ("attributes", "count"),
    [
        ({"route": "/"}, 6),
        ({"route": "/other"}, 0),
        ({"service.instance.id": "a"}, 2),
        ({"service.instance.id": "a", "route": "/"}, 2),
        ({"service_name": "gateway"}, 4),
        ({"service.instance.id": "none"}, 0),
    ],
)
def test_attributes_select_points_by_themselves_or_their_resource(
    named: StoragePool, attributes: dict[str, str], count: int
) -> None:
    found = ask(named, "count", name="requests", attributes=attributes, bucket_size_secs=120)
    assert found == ([(0, count)] if count else [])
    with named.unit_of_work() as uow:
        metric = uow.metrics.get_by_name("requests", service_name="worker")[0]
    assert ask(named, "count", metric_id=metric.id, attributes={"route": "/"}) == [(0, 1), (60, 1)]
    assert ask(named, "count", metric_id=metric.id, attributes={"route": 1}) == []


def test_one_metric_of_the_name_is_the_metric_by_its_id(named: StoragePool) -> None:
    with named.unit_of_work() as uow:
        (metric,) = uow.metrics.get_by_name("requests", service_name="worker")
    for aggregation in ("increase", "avg", "last"):
        by_name = ask(named, aggregation, name="requests", service_name="worker")
        assert by_name == ask(named, aggregation, metric_id=metric.id)


def test_points_before_the_range_are_found_for_many_instances(shared_pool: StoragePool) -> None:
    writer = CopyWriter(shared_pool)
    of = {"name": "many", "metric_type": "counter", "temporality": "cumulative"}
    writer.write_metrics(
        {**of, "service_name": "s", "resource_attributes": {"n": n}} for n in range(40)
    )
    with shared_pool.unit_of_work() as uow:
        metrics = uow.metrics.get_by_name("many")
    writer.write_data_points(
        {
            "metric_id": metric.id,
            "timestamp": START + second * SECOND,
            "attributes": {"k": k},
            "value": float(100 + second),
        }
        for metric in metrics
        for k in range(30)
        for second in (-90, -60, -30, 0)
    )
    assert ask(shared_pool, "increase", name="many") == [(0, 40 * 30 * 30.0)]


def test_metrics_that_cannot_be_aggregated_together_are_refused(shared_pool: StoragePool) -> None:
    writer = CopyWriter(shared_pool)
    for name, columns in {
        "types": ({"metric_type": "gauge"}, {"metric_type": "counter"}),
        "units": ({"unit": "s"}, {"unit": "ms"}),
        "temporality": ({"temporality": "delta"}, {"temporality": "cumulative"}),
    }.items():
        of = {"name": name, "metric_type": "counter", "service_name": "s"}
        writer.write_metrics({**of, **own} for own in columns)
    with pytest.raises(ValidationError, match="counter, gauge") as refused:
        ask(shared_pool, "avg", name="types")
    assert refused.value.field == "name"
    assert ask(shared_pool, "avg", name="types", metric_type="gauge") == []
    with pytest.raises(ValidationError, match="ms, s"):
        ask(shared_pool, "sum", name="units")
    with pytest.raises(ValidationError, match="are delta") as refused:
        ask(shared_pool, "avg", name="temporality")
    assert refused.value.field == "aggregation"
    assert ask(shared_pool, "increase", name="temporality") == []
    with pytest.raises(NotFound, match="'no such name'"):
        ask(shared_pool, "avg", name="no such name")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "metric_id"),
        ({"service_name": "s"}, "service_name"),
        ({"metric_type": "gauge"}, "metric_type"),
        ({"name": 5}, "name"),
        ({"name": "n", "metric_id": "5b8efff7-9803-8103-d269-b633813fc60c"}, "name"),
        ({"name": "n", "metric_type": "meter"}, "metric_type"),
        ({"name": Prefix("n")}, "name"),
        ({"name": "n", "attributes": {"k": None}}, "attributes"),
        ({"name": "n", "attributes": {"k": Prefix("v")}}, "attributes"),
        ({"name": "n", "attributes": {"k": ["v"]}}, "attributes"),
        ({"name": "n", "start_time": None}, "start_time"),
    ],
)
def test_metrics_are_named_or_given_by_id(given: dict[str, Any], field: str) -> None:
    times = {"start_time": START, "end_time": START}
    with pytest.raises(ValidationError) as refused:
        TimeSeriesQuery(**{**times, **given})
    assert refused.value.field == field


def test_a_query_by_name_can_be_kept() -> None:
    times: Row = {"start_time": START, "end_time": START}
    one = TimeSeriesQuery(name="n", attributes={"k": 1}, **times)
    assert one == TimeSeriesQuery(name="n", attributes={"k": 1}, **times)
    assert hash(one) == hash(TimeSeriesQuery(name="n", attributes={"k": 1}, **times))
    assert one != TimeSeriesQuery(name="m", attributes={"k": 1}, **times)


@citus.not_there("shards have plans of their own")
def test_the_points_are_read_from_the_key(named: StoragePool) -> None:
    plans = plans_of(
        named,
        lambda uow: uow.metrics.query_time_series(
            name="requests", start_time=START, end_time=START + 60 * SECOND, aggregation="increase"
        ),
    )
    assert "ix_metrics_name" in plans[0].indexes
    assert all("pk_metric_data_points" in plan.indexes for plan in plans[1:])


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        ({}, 198.0),
        ({"aggregation": "last"}, 100.0),
        ({"service_name": "worker"}, 100.0),
        ({"attributes": {"service.instance.id": "a"}}, 98.0),
        ({"attributes": {"n": 98}}, None),
    ],
)
def test_the_previous_value_is_of_the_latest_point_of_any_metric(
    named: StoragePool, fields: dict[str, Any], value: float | None
) -> None:
    asked = {"aggregation": "sum", "fill": "previous", "end_time": START + 20 * SECOND, **fields}
    assert ask(named, name="load", **asked) == [(0, value)]


@citus.not_there("shards have plans of their own")
def test_the_previous_value_is_found_by_the_key_of_each_metric(shared_pool: StoragePool) -> None:
    points = [{"timestamp": START - n * SECOND, "value": 1.0} for n in range(1, 1001)]
    write(shared_pool, "queue", "gauge", {"a": points, "b": points})
    plans = plans_of(
        shared_pool,
        lambda uow: uow.metrics.query_time_series(
            name="queue", start_time=START, end_time=START + SECOND, fill="previous"
        ),
    )
    latest = next(plan for plan in plans if "newest" in plan.statement)
    assert "pk_metric_data_points" in latest.indexes
    assert latest.rows < 1000, latest.text  # of the points, and of metrics of other tests
