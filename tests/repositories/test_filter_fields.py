"""Each field of each filter chooses rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import timedelta
from decimal import Decimal
from typing import Any, cast, get_type_hints

import pytest

from observatory_storage import (
    CopyWriter,
    Exists,
    LogFilters,
    MetricFilters,
    Not,
    OneOf,
    Prefix,
    SessionFilters,
    SpanFilters,
    StoragePool,
    TraceFilters,
    TraceWriter,
    UnitOfWork,
    ValidationError,
)
from observatory_storage.repositories.logs.filters import LogKeywords
from observatory_storage.repositories.metrics.filters import MetricKeywords
from observatory_storage.repositories.reading.filter_fields import Filters, rules_of
from observatory_storage.repositories.traces.filters import SpanKeywords, TraceKeywords
from observatory_storage.repositories.traces.session_filters import SessionKeywords
from tests.repositories.samples import DAY, SECOND, START, Row, trace_key

FILTERS: dict[type[Any], type[Any]] = {
    TraceFilters: TraceKeywords,
    SpanFilters: SpanKeywords,
    SessionFilters: SessionKeywords,
    LogFilters: LogKeywords,
    MetricFilters: MetricKeywords,
}
LISTS: dict[type[Any], Callable[[UnitOfWork], Callable[..., Any]]] = {
    TraceFilters: lambda uow: uow.traces.list,
    SpanFilters: lambda uow: uow.traces.list_spans,
    SessionFilters: lambda uow: uow.traces.list_sessions,
    LogFilters: lambda uow: uow.logs.list,
    MetricFilters: lambda uow: uow.metrics.list,
}
# Of two rows, the value of each field that the first row alone meets.
OF_SPANS: dict[str, Any] = {
    "service_name": "first",
    "operation": "first",
    "status": "ok",
    "start_time": START,
    "end_time": START + SECOND,
    "min_duration_us": timedelta(seconds=5),
    "max_duration_us": timedelta(seconds=5),
    "attributes": {"key": "first"},
    "provider": "first",
    "model": "first",
    "user_id": "first",
    "session_id": "first",
    "environment": "first",
    "gen_ai_operation": "first",
    "response_model": "first",
    "agent_name": "first",
    "tool_name": "first",
    "finish_reason": "first",
    "error_type": "first",
    "prompt_name": "first",
    "min_tokens": 50,
    "max_tokens": 50,
    "min_cost_usd": Decimal(5),
    "max_cost_usd": Decimal(5),
    "text": "first",
    "contains": "irs",
    "root": True,
    "ended_after": START + 5 * SECOND,
    "ended_before": START + 6 * SECOND,
}
OF_TRACE: dict[str, Any] = {"trace_id": trace_key(1), "kind": "client", "name": "first"}
OF_LOGS: dict[str, Any] = {
    "service_name": "first",
    "min_severity": "ERROR",
    "trace_id": trace_key(1),
    "span_id": f"{1:016x}",
    "start_time": START,
    "end_time": START + SECOND,
    "event_name": "first",
    "attributes": {"key": "first"},
    "text": "first",
    "contains": "irs",
}
VALUES: dict[type[Any], dict[str, Any]] = {
    TraceFilters: OF_SPANS,
    SpanFilters: {**OF_SPANS, **OF_TRACE},
    SessionFilters: {
        name: OF_SPANS[name]
        for name in ("user_id", "service_name", "environment", "start_time", "end_time")
    },
    LogFilters: OF_LOGS,
    MetricFilters: {"service_name": "first", "metric_type": "gauge", "name": "first"},
}
# A time before the first row's, for what needs a bound.
NEEDS: dict[str, dict[str, Any]] = {"contains": {"start_time": START - 9 * DAY}}
# Of the second row: later or earlier, more or less, so that both bounds of a range are tried.
LATER = {"end_time", "ended_before", "max_duration_us", "max_tokens", "max_cost_usd"}


EVERY_FIELD = [
    (kind, field.name) for kind in FILTERS for field in fields(kind) if field.name != "limit"
]


@pytest.mark.parametrize(("kind", "field"), EVERY_FIELD, ids=str)
def test_every_field_narrows_the_list(two_rows: StoragePool, kind: type[Any], field: str) -> None:
    value = VALUES[kind][field]
    with two_rows.unit_of_work() as uow:
        everything = len(LISTS[kind](uow)())
        found = LISTS[kind](uow)(kind(**{field: value, **NEEDS.get(field, {})}))
        assert 0 < len(found) < everything == 3
        names = {_name(row) for row in found}
        assert "first" in names
        assert names <= ({"first", "below"} if field in LATER else {"first", "above"})


# Further values, which no row has, of the fields that do not take any text.
ABSENT = {
    "status": "unset",
    "kind": "producer",
    "metric_type": "summary",
    "trace_id": trace_key(9),
    "span_id": f"{9:016x}",
}
WITH_OPERATORS: list[tuple[Any, str]] = [
    (kind, name)
    for kind in FILTERS
    for name, rule in rules_of(cast("Any", kind)).items()
    if rule.takes_operators
]


@pytest.mark.parametrize(("kind", "field"), WITH_OPERATORS, ids=str)
def test_every_field_of_text_takes_operators(
    two_rows: StoragePool, kind: type[Any], field: str
) -> None:
    value = VALUES[kind][field]
    with two_rows.unit_of_work() as uow:

        def found(given: Any) -> set[str]:
            return {_name(row) for row in LISTS[kind](uow)(kind(**{field: given}))}

        everything, chosen = found(None), found(value)
        assert found([value, ABSENT.get(field, "nobody")]) == chosen < everything
        assert found(Exists()) == everything
        if kind is not SessionFilters:
            assert found(Not(value)) == found(Not([value])) == everything - chosen
            assert found(Not(Exists())) == set()
        if field not in ABSENT:
            assert found(Prefix("fir")) == found(OneOf(Prefix("fi"), Prefix("x"))) == {"first"}


@pytest.mark.parametrize("kind", [TraceFilters, SpanFilters, LogFilters])
def test_attributes_take_operators(two_rows: StoragePool, kind: type[Any]) -> None:
    with two_rows.unit_of_work() as uow:

        def found(given: Any, key: str = "key") -> set[str]:
            return {_name(row) for row in LISTS[kind](uow)(kind(attributes={key: given}))}

        assert found(OneOf("first", "above", 1)) == {"first", "above"}
        assert found(Prefix("fi")) == found(OneOf(Prefix("fi"), "x")) == {"first"}
        assert found(Not("first")) == found(Not("first", "x")) == {"below", "above"}
        assert found(Exists()) == {"first", "below", "above"} == found(Not(Exists()), "none")
        assert found(Not(Exists())) == set() == found(Prefix("1"))
        both = kind(attributes={"key": Not("first"), "none": Not("above")})
        assert {_name(row) for row in LISTS[kind](uow)(both)} == {"below", "above"}


def _name(row: Any) -> str:
    return str(row.service_names[0] if hasattr(row, "service_names") else row.service_name)


# A trace without spans has these columns itself; the other fields only a span can meet.
OF_SPANLESS_TRACES = (
    "service_name", "status", "start_time", "end_time", "min_duration_us", "max_duration_us",
    "attributes", "min_tokens", "max_tokens", "min_cost_usd", "max_cost_usd", "text",
    "contains",
    "ended_after", "ended_before",
)  # fmt: skip


@pytest.mark.parametrize("field", OF_SPANS)
def test_every_field_narrows_the_list_of_traces_without_spans(
    pool: StoragePool, field: str
) -> None:
    with TraceWriter(pool) as writer:
        for number, (name, factor) in enumerate((("first", 0), ("below", -1), ("above", 1))):
            start = START + factor * DAY
            writer.write_trace(
                {
                    "trace_id": trace_key(number + 1),
                    "service_name": name,
                    "status": "ok" if factor == 0 else "unset",
                    "start_time": start,
                    "end_time": start + (5 + factor) * SECOND,
                    "total_tokens": 50 + factor,
                    "total_cost_usd": Decimal(5 + factor),
                    "attributes": {"key": name, "gen_ai.prompt": name},
                }
            )
    with pool.unit_of_work() as uow:
        found = [
            row.service_name
            for row in uow.traces.list(
                TraceFilters(**{field: OF_SPANS[field], **NEEDS.get(field, {})})
            )
        ]
    if field in OF_SPANLESS_TRACES:
        assert "first" in found
        assert len(found) < 3
    else:
        assert found == []


@pytest.mark.parametrize("kind", FILTERS)
def test_keywords_are_the_fields_of_the_filters(kind: type[Any]) -> None:
    assert get_type_hints(FILTERS[kind]) == {
        name: hint
        for name, hint in get_type_hints(kind).items()
        if name in {field.name for field in fields(kind)}
    }


def test_a_field_without_a_condition_cannot_be_declared() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Undeclared(Filters):
        tag: str | None = None

    with pytest.raises(TypeError, match="declare tag with filter_field"):
        Undeclared(tag="a")


@pytest.mark.parametrize("kind", FILTERS)
def test_filters_are_keyword_only(kind: type[Any]) -> None:
    with pytest.raises(TypeError, match="positional"):
        kind("first")


@pytest.mark.parametrize("kind", FILTERS)
def test_keywords_work_as_well_as_filters(two_rows: StoragePool, kind: type[Any]) -> None:
    with two_rows.unit_of_work() as uow:
        for field, value in VALUES[kind].items():
            given = {field: value, **NEEDS.get(field, {}), "limit": 2}
            assert _keys(LISTS[kind](uow)(**given)) == _keys(LISTS[kind](uow)(kind(**given)))
        with pytest.raises(TypeError, match="servicename"):
            LISTS[kind](uow)(servicename="first")
        with pytest.raises(ValidationError, match="together with limit") as refused:
            LISTS[kind](uow)(kind(), limit=5)
        assert refused.value.field == "filters"


def _keys(rows: Any) -> list[str]:
    return [_name(row) for row in rows]


@pytest.mark.parametrize("kind", FILTERS)
def test_filters_have_a_hash(kind: type[Any]) -> None:
    values = VALUES[kind]
    several = kind(service_name=["b", "a", "b"])
    assert several == kind(service_name=OneOf("a", "b"))
    assert hash(several) == hash(kind(service_name={"a", "b"}))
    assert kind(service_name=["a"]) == kind(service_name="a")
    given: Row = {**values, "end_time": values["end_time"]} if "end_time" in values else values
    one, same = kind(**given), kind(**given)
    assert one == same
    assert len({one, same, kind(limit=3)}) == 2


@pytest.mark.parametrize("kind", [TraceFilters, SpanFilters, SessionFilters, LogFilters])
@pytest.mark.parametrize("way", ["after", "before"])
def test_a_cursor_stays_valid_if_the_time_bounds_change(
    two_rows: StoragePool, kind: type[Any], way: str
) -> None:
    """As a list of the last two days has, which a command or a view asks for again."""
    with two_rows.unit_of_work() as uow:
        page_of = LISTS[kind](uow)
        first = page_of(kind(start_time=START - 2 * DAY, end_time=START + 2 * DAY, limit=1))
        second = page_of(kind(start_time=START - 2 * DAY + SECOND, limit=1), after=first.next)
        assert _keys(first) + _keys(second) == ["above", "first"]
        if way == "before":
            again = page_of(kind(end_time=START + 3 * DAY, limit=1), before=second.previous)
            assert _keys(again) == ["above"]
        else:
            gone = page_of(kind(start_time=START + DAY, limit=1), after=second.next)
            assert (_keys(gone), gone.next) == ([], None)


@pytest.mark.parametrize("kind", [TraceFilters, SpanFilters, LogFilters])
def test_a_cursor_belongs_to_the_operators(two_rows: StoragePool, kind: type[Any]) -> None:
    given: list[Any] = [
        "first", ["first", "above"], Prefix("first"), Not("first"), Exists(), Not(Exists())
    ]  # fmt: skip
    with two_rows.unit_of_work() as uow:
        cursor = LISTS[kind](uow)(service_name=["first", "above"], limit=1).next
        for value in given[:1] + given[2:]:
            with pytest.raises(ValidationError, match="of another query"):
                LISTS[kind](uow)(service_name=value, after=cursor)
        for same in (("above", "first"), OneOf("above", "first", "first")):
            assert _keys(LISTS[kind](uow)(service_name=same, after=cursor)) == ["first"]


def test_a_cursor_of_points_stays_valid_if_the_time_bounds_change(pool: StoragePool) -> None:
    CopyWriter(pool).write_metrics([{"name": "m", "service_name": "s", "metric_type": "gauge"}])
    with pool.unit_of_work() as uow:
        (metric,) = uow.metrics.get_by_name("m")
        rows: list[Row] = [
            {"metric_id": metric.id, "timestamp": START + n * SECOND, "value": n} for n in range(4)
        ]
        CopyWriter(uow).write_data_points(rows)
        first = uow.metrics.get_data_points(metric.id, START, limit=2)
        after = uow.metrics.get_data_points(metric.id, START + SECOND, limit=2, after=first.next)
        assert [point.value for point in (*first, *after)] == [0, 1, 2, 3]
