"""Summaries, series and sessions become Arrow, with a column for each key of their groups."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from copy import copy
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from observatory_storage import CopyWriter, Page, ResultList, StorageError, StoragePool, UnitOfWork
from tests.repositories.samples import DAY, START, a_log, a_span, an_event, trace_key

Question = Callable[[UnitOfWork], Any]

TIMES: dict[str, Any] = {"start_time": START, "end_time": START + DAY}
SERIES: dict[str, Any] = {**TIMES, "name": "m", "bucket_size_secs": 3600}


def _pinned(uow: UnitOfWork) -> Any:
    if uow.traces.list():
        uow.traces.pin(trace_key(1), "an example")
    return uow.traces.pinned()


QUESTIONS: dict[str, Question] = {
    "sessions": lambda uow: uow.traces.list_sessions(),
    "stream of sessions": lambda uow: uow.traces.iterate_sessions(),
    "span stats": lambda uow: uow.traces.get_stats(group_by="model", bucket_size_secs=60),
    "span stats in all": lambda uow: uow.traces.get_stats(group_by=()),
    "operations": lambda uow: uow.traces.operations("service"),
    "pinned traces": _pinned,
    "costs": lambda uow: uow.metrics.get_cost_summary(group_by=["model", "user_id"]),
    "costs by day": lambda uow: uow.metrics.get_cost_summary(bucket_size_secs="day"),
    "latency": lambda uow: uow.metrics.get_latency_percentiles(),
    "users": lambda uow: uow.metrics.get_user_usage(),
    "active users": lambda uow: uow.metrics.get_active_users(),
    "errors": lambda uow: uow.metrics.get_error_summary(),
    "unpriced models": lambda uow: uow.metrics.get_unpriced_models(),
    "levels": lambda uow: uow.logs.count_by_level(bucket_size_secs=60),
}


@pytest.fixture(scope="module")
def filled(shared_pool: StoragePool) -> StoragePool:
    writer = CopyWriter(shared_pool)
    facts: dict[str, Any] = {"user_id": "ü", "session_id": "s", "events": [an_event()]}
    writer.write_spans(
        [
            a_span(1, 1, **facts, model="m", total_tokens=7, total_cost_usd=Decimal("0.125")),
            a_span(2, 1, **facts, model="n", total_tokens=9, total_cost_usd=None),
            a_span(3, 1, status="error", error_type="timeout"),
        ]
    )
    writer.write_logs([a_log(1, severity_number=9), a_log(2)])
    writer.write_metrics([{"name": "m", "metric_type": "gauge", "service_name": "service"}])
    with shared_pool.unit_of_work() as uow:
        metric = uow.metrics.get_by_name("m")[0].id
    groups: list[dict[str, Any]] = [{"host": "a"}, {"host": 1}, {"value": "of a group"}, {}]
    writer.write_data_points(
        {"metric_id": metric, "timestamp": START, "value": 0.5 + n, "attributes": group}
        for n, group in enumerate(groups)
    )
    return shared_pool


@pytest.mark.parametrize("name", QUESTIONS)
def test_results_have_their_fields_as_columns(filled: StoragePool, name: str) -> None:
    with filled.unit_of_work() as uow:
        results = QUESTIONS[name](uow)
        table = pa.table(results.to_arrow())
        rows = [_columns(result) for result in results]
    assert rows
    assert table.to_pylist() == rows


@pytest.mark.parametrize("name", QUESTIONS)
def test_no_results_have_the_same_columns(
    filled: StoragePool, pool: StoragePool, name: str
) -> None:
    with filled.unit_of_work() as full, pool.unit_of_work() as blank:
        expected = pa.table(QUESTIONS[name](full).to_arrow()).schema
        none = pa.table(QUESTIONS[name](blank).to_arrow())
    assert (len(none), none.schema) == (0, expected)


def test_a_time_series_has_its_groups_as_columns(filled: StoragePool) -> None:
    with filled.unit_of_work() as uow:
        series = uow.metrics.query_time_series(**SERIES, aggregation="sum", group_by="host")
        assert series.to_arrow().select(["value", "group.host"]).to_pylist() == [
            {"value": point.value, "group.host": point.group["host"] and str(point.group["host"])}
            for point in series
        ]
        series = uow.metrics.query_time_series(**SERIES, group_by=("value", "host"))
        assert series.to_arrow().column_names == ["timestamp", "value", "group.value", "group.host"]
        later = {**SERIES, "start_time": START + DAY, "end_time": START + 2 * DAY}
        none = uow.metrics.query_time_series(**later, group_by=("value", "host"))
        assert len(none) == 0
        assert none.to_arrow().schema == series.to_arrow().schema


def test_a_list_of_results_is_a_list(filled: StoragePool) -> None:
    with filled.unit_of_work() as uow:
        costs = uow.metrics.get_cost_summary()
    assert isinstance(costs, list)
    assert costs == [*costs]
    for same in (copy(costs), pickle.loads(pickle.dumps(costs))):
        assert isinstance(same, ResultList)
        assert same == costs
        assert same.to_arrow() == costs.to_arrow()


def test_a_page_can_be_pickled_and_converted_then(filled: StoragePool) -> None:
    with filled.unit_of_work() as uow:
        for page in (uow.traces.list_spans(), uow.traces.list_sessions(user_id="none")):
            same = pickle.loads(pickle.dumps(page))
            assert same.to_arrow() == page.to_arrow()
        assert "shape" not in page.to_dict()
        assert "shape" not in repr(page)


def test_a_page_of_your_own_has_no_columns() -> None:
    with pytest.raises(StorageError, match="only a page that a repository returned"):
        Page((1, 2)).to_arrow()


def test_a_page_with_its_total_keeps_its_columns(filled: StoragePool) -> None:
    with filled.unit_of_work() as uow:
        page = uow.traces.list_spans(limit=1, total="exact")
        assert page.total == 3
        assert page.to_arrow().num_rows == 1


def _columns(result: Any) -> dict[str, Any]:
    fields = result.to_dict()
    group: Mapping[str, Any] = fields.pop("group", {})
    fields |= {f"group.{key}": value for key, value in group.items()}
    return {name: _plain(value) for name, value in fields.items()}


def _plain(value: Any) -> Any:
    match value:
        case UUID():
            return str(value)
        case Decimal():
            return float(value)
        case tuple():
            return list(value)
        case _:
            return value
