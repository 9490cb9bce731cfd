"""Lists in the order of duration, tokens or cost, against the same sort in plain Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, get_args

import pytest

from observatory_storage import (
    CopyWriter,
    Not,
    Prefix,
    SpanFilters,
    StoragePool,
    TraceFilters,
    TraceWriter,
    UnitOfWork,
    ValidationError,
)
from observatory_storage.repositories.reading.cursors import encode_cursor
from observatory_storage.repositories.traces import candidates, trace_search
from observatory_storage.repositories.traces.ordered_search import NEWEST_FIRST, Order
from tests.repositories.samples import (
    DAY,
    SECOND,
    START,
    Row,
    a_span,
    backwards,
    forwards,
    matching_traces,
    meets,
    nanoseconds,
    trace_key,
)

ORDERS = [order for order in get_args(Order) if order != NEWEST_FIRST]
EVERYTHING: Row = {"start_time": START - DAY, "end_time": START + 9 * DAY}
ONE_DAY: Row = {"start_time": START + DAY + 3 * SECOND, "end_time": START + 2 * DAY}
CONDITIONS: list[Row] = [
    EVERYTHING,
    ONE_DAY,
    {**EVERYTHING, "service_name": "api", "status": Not("error")},
    {**ONE_DAY, "model": Prefix("l")},
    {**EVERYTHING, "user_id": "ann"},
    {**EVERYTHING, "attributes": {"k": 1}},
]


def ordered(rows: Sequence[Any], value: Callable[[Any], Any], tie: Any, order: str) -> list[Any]:
    """The rows as a list has them: those without a value last."""
    backwards = order.startswith("-")
    known = [row for row in rows if value(row) is not None]
    unknown = [row for row in rows if value(row) is None]
    known.sort(key=lambda row: (value(row), tie(row)), reverse=backwards)
    return known + sorted(unknown, key=tie, reverse=backwards)


def trace_value(spans: list[Row], order: str) -> Any:
    name = order.removeprefix("-")
    if name == "duration_us":
        ends = [span["end_time"] for span in spans if span["end_time"] is not None]
        return max(ends) - min(span["start_time"] for span in spans) if ends else None
    values = [span[name] for span in spans if span[name] is not None]
    return sum(values) if values else None


@pytest.mark.parametrize("few", [0, 100_000])
@pytest.mark.parametrize("order", ORDERS)
def test_traces_are_sorted_by_their_totals(
    shared_pool: StoragePool,
    spans: list[Row],
    order: Order,
    few: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trace_search, "_FEW_SPANS", few)  # each of the two ways
    monkeypatch.setattr(candidates, "_MOST", few)
    with shared_pool.unit_of_work() as uow:
        for conditions in CONDITIONS:
            filters = TraceFilters(**conditions, limit=25)
            found = {
                key: rows
                for key, rows in matching_traces(spans, filters).items()
                if min(row["start_time"] for row in rows) >= conditions["start_time"]
            }

            def value(key: str, found: dict[str, list[Row]] = found) -> Any:
                return trace_value(found[key], order)

            def page_at(filters: TraceFilters = filters, **cursor: Any) -> Any:
                return uow.traces.list(filters, order_by=order, **cursor)

            pages = forwards(page_at)
            listed = [[trace.trace_id for trace in page] for page in pages]
            in_order = [key for page in listed for key in page]
            assert in_order == ordered(list(found), value, str, order)
            assert [[t.trace_id for t in page] for page in backwards(page_at, pages[-1])] == listed
            assert page_at(total="exact").total == len(found)


@pytest.mark.parametrize("order", ORDERS)
def test_spans_are_sorted_by_their_own_values(
    shared_pool: StoragePool, spans: list[Row], order: Order
) -> None:
    name = order.removeprefix("-")

    def value(row: Row) -> Any:
        return nanoseconds(row) if name == "duration_us" else row[name]

    def tie(row: Row) -> Any:
        return row["start_time"], row["start_ns"], row["trace_id"], row["span_id"]

    of_trace = {"trace_id": trace_key(7)}
    with shared_pool.unit_of_work() as uow:
        for conditions in [*CONDITIONS, of_trace]:
            filters = SpanFilters(**conditions, limit=60)
            expected = ordered([row for row in spans if meets(row, filters)], value, tie, order)

            def page_at(filters: SpanFilters = filters, **cursor: Any) -> Any:
                return uow.traces.list_spans(filters, order_by=order, **cursor)

            pages = forwards(page_at)
            listed = [[span.span_id for span in page] for page in pages]
            assert [key for page in listed for key in page] == [row["span_id"] for row in expected]
            assert [[s.span_id for s in page] for page in backwards(page_at, pages[-1])] == listed


def test_traces_without_spans_are_sorted_among_the_others(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1, total_tokens=5), a_span(2, 2)])
    with TraceWriter(pool) as writer:
        for number, tokens in ((3, 7), (4, 3), (5, None)):
            row: Row = {"trace_id": trace_key(number), "service_name": "service"}
            writer.write_trace({**row, "start_time": START, "total_tokens": tokens})
    wanted: Row = {**EVERYTHING, "service_name": "service", "limit": 2}
    with pool.unit_of_work() as uow:
        for order, expected in (("-total_tokens", [3, 1, 4, 5, 2]), ("total_tokens", [4, 1, 3])):
            pages = forwards(
                lambda order=order, **at: uow.traces.list(**wanted, order_by=order, **at)
            )
            found = [trace.trace_id for page in pages for trace in page]
            assert found[: len(expected)] == [trace_key(number) for number in expected]
            assert len(found) == 5


Ask = Callable[..., Any]


@pytest.mark.parametrize(
    "ask", [lambda uow: uow.traces.list, lambda uow: uow.traces.list_spans], ids=["traces", "spans"]
)
def test_an_order_needs_a_range(pool: StoragePool, ask: Callable[[UnitOfWork], Ask]) -> None:
    with pool.unit_of_work() as uow:
        for given, field in (
            ({}, "start_time"),
            ({"start_time": START}, "end_time"),
            ({"end_time": START, "user_id": "ann"}, "start_time"),
        ):
            with pytest.raises(ValidationError, match="is required where order_by is") as refused:
                ask(uow)(order_by="-duration_us", **given)
            assert refused.value.field == field
        for order in ("start_time", "-model", "", None, 1, ["-duration_us"]):
            with pytest.raises(ValidationError) as refused:
                ask(uow)(order_by=order, **EVERYTHING)
            assert refused.value.field == "order_by"
        assert list(ask(uow)(order_by=NEWEST_FIRST)) == []


def test_a_cursor_belongs_to_its_order(shared_pool: StoragePool, spans: list[Row]) -> None:
    with shared_pool.unit_of_work() as uow:
        cursor = uow.traces.list(**EVERYTHING, order_by="-total_cost_usd", limit=3).next
        for order in ("total_cost_usd", "-total_tokens", NEWEST_FIRST):
            with pytest.raises(ValidationError, match="of another query"):
                uow.traces.list(**EVERYTHING, order_by=order, after=cursor)
        later: Row = {**EVERYTHING, "end_time": START + 10 * DAY}
        assert len(uow.traces.list(**later, order_by="-total_cost_usd", limit=3, after=cursor)) == 3


@pytest.mark.parametrize("forged", ["NaN", "Infinity", "1e20000", "x", None, True, 1.5, [1]])
def test_a_forged_cost_in_a_cursor_is_refused(pool: StoragePool, forged: Any) -> None:
    filters = TraceFilters(**EVERYTHING)
    order: Order = "-total_cost_usd"
    cursor = encode_cursor(f"traces by {order}", filters.query(), [forged, trace_key(1)])
    with pool.unit_of_work() as uow, pytest.raises(ValidationError) as refused:
        uow.traces.list(filters, order_by=order, after=cursor)
    assert refused.value.field == "after"


def test_costs_are_compared_with_all_their_digits(pool: StoragePool) -> None:
    costs = [Decimal("0.1000000000000000000001"), Decimal("0.1"), Decimal(0), None]
    CopyWriter(pool).write_spans(
        [a_span(number, number, total_cost_usd=cost) for number, cost in enumerate(costs, start=1)]
    )
    with pool.unit_of_work() as uow:
        pages = forwards(
            lambda **at: uow.traces.list(**EVERYTHING, order_by="-total_cost_usd", limit=1, **at)
        )
        assert [page[0].total_cost_usd for page in pages] == costs
