"""What comes back has the types that the results declare."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from observatory_storage import CopyWriter, StoragePool, UnitOfWork, repositories
from observatory_storage.repositories import Page
from observatory_storage.repositories.reading.operators import Operator
from tests.repositories.samples import DAY, START, a_log, a_span, an_event, trace_key

SERVICE = "service"


def _pinned(uow: UnitOfWork) -> Any:
    uow.traces.pin(trace_key(1), "an example")
    return uow.traces.pinned()


QUESTIONS: dict[str, Callable[[UnitOfWork], Any]] = {
    "sessions": lambda uow: uow.traces.list_sessions(total="exact"),
    "session": lambda uow: [uow.traces.get_session("s")],
    "trace stats": lambda uow: [uow.traces.get_stats()],
    "trace stats of nothing": lambda uow: [uow.traces.get_stats(service_name="nobody")],
    "span stats": lambda uow: uow.traces.get_stats(group_by="model", bucket_size_secs=60),
    "span stats in all": lambda uow: uow.traces.get_stats(group_by=()),
    "operations": lambda uow: uow.traces.operations(SERVICE),
    "costs": lambda uow: uow.metrics.get_cost_summary(bucket_size_secs=60),
    "costs in all": lambda uow: uow.metrics.get_cost_summary(group_by=()),
    "latency": lambda uow: uow.metrics.get_latency_percentiles(),
    "users": lambda uow: uow.metrics.get_user_usage(bucket_size_secs="day"),
    "active users": lambda uow: uow.metrics.get_active_users(),
    "errors": lambda uow: uow.metrics.get_error_summary(),
    "logs": lambda uow: [uow.logs.get_stats()],
    "logs of nothing": lambda uow: [uow.logs.get_stats(service_name="nobody")],
    "levels": lambda uow: uow.logs.count_by_level(bucket_size_secs=60),
    "metric": lambda uow: [uow.metrics.get_stats(_metric(uow))],
    "metric of another time": lambda uow: [uow.metrics.get_stats(_metric(uow), START + DAY)],
    "series": lambda uow: uow.metrics.query_time_series(
        metric_id=_metric(uow), start_time=START, end_time=START + DAY, fill="null"
    ),
    "tree": lambda uow: [uow.traces.get_tree(trace_key(1))],
    "nodes": lambda uow: uow.traces.get_tree(trace_key(1)).nodes,
    "critical path": lambda uow: uow.traces.get_tree(trace_key(1)).critical_path,
    "unpriced models": lambda uow: uow.metrics.get_unpriced_models(START, START + DAY),
    "pinned traces": _pinned,
    "deleted trace": lambda uow: [uow.traces.delete(trace_key(1))],
    "deleted user": lambda uow: [uow.traces.delete_user("u")],
}


def _metric(uow: UnitOfWork) -> Any:
    return uow.metrics.get_by_name("m")[0].id


@pytest.fixture(scope="module")
def rows(shared_pool: StoragePool) -> StoragePool:
    writer = CopyWriter(shared_pool)
    facts: dict[str, Any] = {
        "model": "m",
        "provider": "p",
        "user_id": "u",
        "session_id": "s",
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "total_tokens": 7,
        "total_cost_usd": 0.5,
        "prompt_cost_usd": 0.2,
        "completion_cost_usd": 0.3,
        "events": [an_event()],
        "status": "error",
    }
    writer.write_spans([a_span(trace, 1, **facts) for trace in (1, 2, 3)])
    writer.write_spans([a_span(4, 1, total_tokens=5)])
    writer.write_logs([a_log(1, severity_number=17, trace_id=trace_key(1)), a_log(2)])
    writer.write_metrics([{"name": "m", "metric_type": "gauge", "service_name": SERVICE}])
    with shared_pool.unit_of_work() as uow:
        points = [{"metric_id": _metric(uow), "timestamp": START, "value": 5}]
        CopyWriter(uow).write_data_points(points)
        uow.commit()
    return shared_pool


@pytest.mark.parametrize("name", QUESTIONS)
def test_results_have_the_types_that_they_declare(rows: StoragePool, name: str) -> None:
    with rows.unit_of_work() as uow:
        found = QUESTIONS[name](uow)
        assert len(found) > 0
        for result in [*found, *([found] if isinstance(found, Page) else [])]:
            wrong = [
                f"{field} = {value!r}"
                for field, value, hint in _typed(result)
                if not _is(value, hint)
            ]
            assert not wrong


def test_every_result_class_is_returned_by_a_question(rows: StoragePool) -> None:
    declared = {
        kind
        for kind in vars(repositories).values()
        if isinstance(kind, type)
        and (is_dataclass(kind) or hasattr(kind, "_fields"))
        and not kind.__name__.endswith(("Filters", "Query"))
        and not issubclass(kind, Operator)
    }
    with rows.unit_of_work() as uow:
        found = [ask(uow) for ask in QUESTIONS.values()]
    asked = {type(result) for results in found for result in [*results, results]}
    assert declared - asked == set()


def _typed(result: Any) -> Iterator[tuple[str, Any, Any]]:
    names = [f.name for f in fields(result)] if is_dataclass(result) else result._fields
    hints = typing.get_type_hints(type(result))
    for name in names:
        yield name, getattr(result, name), hints[name]


def _is(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or isinstance(hint, typing.TypeVar):
        return True
    if origin in {typing.Union, types.UnionType}:
        return any(_is(value, one) for one in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is tuple:
        return type(value) is tuple and all(_is(one, arguments[0]) for one in value)
    if origin is not None:
        return isinstance(value, origin)
    return type(value) is (type(None) if hint is None else hint)
