"""Many rows prepared together, which costs a third of preparing one after the other.

Rows among which something is not plain (a value that is not valid, a span that gives its own
totals) go through the functions of `prepare`, one by one: both ways come to equal rows.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import repeat
from typing import Any, Final, NamedTuple, TypeVar

from observatory_storage import ids, jsonb
from observatory_storage.errors import BatchError, Rejected, ValidationError
from observatory_storage.llm import facts_by_column
from observatory_storage.models import Base, LogRecord, MetricDataPoint, TraceSpan
from observatory_storage.rows.columns import Column, NotPlain, columns_of, in_order
from observatory_storage.rows.prepare import (
    USAGE,
    Row,
    as_mapping,
    events_of,
    prepare_data_point,
    prepare_log,
    prepare_span,
    service_of,
)
from observatory_storage.rows.tables import LOGS, POINTS, SPANS

__all__ = ["PART", "SpanColumns", "prepare_all", "prepare_many", "prepare_span_columns"]

# Rows that are prepared together: so many that the cost of a column does not count, and so few
# that they stay in the processor's cache, and a server does not wait long for the first.
PART: Final = 100
_FEW: Final = 8
_MICROSECOND: Final = timedelta(microseconds=1)
_NOTHING: Final[Mapping[str, Any]] = {}
# A span that gives one of these itself is for `prepare_span`.
_OF_OTHERS: Final = USAGE | {"duration_us", "duration_ns"}

Prepare = Callable[[Any], Row]
_T = TypeVar("_T")


def prepare_all(prepare: Prepare, rows: Sequence[Any]) -> list[Row]:
    """All rows, ready to write.

    Args:
        prepare: what prepares one of them.

    Raises:
        ValidationError: names the first that is not valid by its index.
    """
    prepared: list[Row] = []
    for start in range(0, len(rows), PART):
        part = rows[start : start + PART]
        made = _together(prepare, part)
        prepared += _one_by_one(prepare, part, start) if made is None else made
    return prepared


def prepare_many(prepare: Prepare, rows: Iterable[Any]) -> tuple[list[Row], BatchError | None]:
    """The good rows, ready to write, and one error that lists the others."""
    given = list(rows)
    prepared: list[Row] = []
    rejected: list[Rejected] = []
    for start in range(0, len(given), PART):
        part = given[start : start + PART]
        made = _together(prepare, part)
        if made is not None:
            prepared += made
            continue
        for index, row in enumerate(part, start):
            repairs = jsonb.repairs.count
            try:
                prepared.append(prepare(row))
            except ValidationError as error:
                jsonb.repairs.count = repairs  # nothing of it is stored
                rejected.append(Rejected(index, row, error))
    return prepared, BatchError(rejected) if rejected else None


class SpanColumns(NamedTuple):
    """Some spans, ready to write.

    Attributes:
        columns: all columns of the table, in their order.
        events: for each span its events' values, None where it says nothing of its events.
        trace_texts: for each span its trace id as text.
    """

    columns: list[Column]
    events: list[tuple[tuple[Any, ...], ...] | None]
    trace_texts: list[str]

    def rows(self) -> Iterator[Row]:
        return map(
            Row, repeat(SPANS.name), zip(*self.columns, strict=True), self.events, self.trace_texts
        )


def prepare_span_columns(rows: Sequence[Any]) -> SpanColumns:
    """Spans for who wants their columns rather than themselves.

    Raises:
        ValidationError: names the first that is not valid by its index.
    """
    try:
        return _plainly(rows, TraceSpan, _span_columns)
    except NotPlain:
        prepared = _one_by_one(prepare_span, rows)
    columns = [list(column) for column in zip(*(row.values for row in prepared), strict=True)]
    return SpanColumns(
        columns, [row.events for row in prepared], [row.trace_text for row in prepared]
    )


def _one_by_one(prepare: Prepare, rows: Sequence[Any], first: int = 0) -> list[Row]:
    prepared = []
    for index, row in enumerate(rows, first):
        try:
            prepared.append(prepare(row))
        except ValidationError as error:
            raise ValidationError(error.field, error.value, error.rule, index) from None
    return prepared


def _together(prepare: Prepare, rows: Sequence[Any]) -> list[Row] | None:
    """The rows, or None where they are to be prepared one by one."""
    if prepare not in _TOGETHER:
        return None
    model, make = _TOGETHER[prepare]
    try:
        return list(_plainly(rows, model, make))
    except NotPlain:
        return None


def _plainly(
    rows: Sequence[Any], model: type[Base], make: Callable[[Sequence[Mapping[str, Any]]], _T]
) -> _T:
    if len(rows) < _FEW:
        raise NotPlain
    repairs = jsonb.repairs.count
    try:
        return make([row if type(row) is dict else as_mapping(row, model) for row in rows])
    except (NotPlain, ValidationError):
        jsonb.repairs.count = repairs  # they will be met again
        raise NotPlain from None


def _span_columns(rows: Sequence[Mapping[str, Any]]) -> SpanColumns:
    columns = columns_of(SPANS, rows)
    if not _OF_OTHERS.isdisjoint(columns):
        raise NotPlain
    _name_services(columns, rows)
    count = len(rows)
    found = facts_by_column(
        [row.get("attributes") or _NOTHING for row in rows],
        names=columns["name"],
        scope_names=columns.get("scope_name") or [None] * count,
        resource_attributes=[row.get("resource_attributes") or _NOTHING for row in rows],
    )
    for column, values in found.items():
        given = columns.get(column)
        columns[column] = values if given is None else _either(given, values)
    _add_durations(columns)
    ordered = in_order(SPANS, columns, count)
    events = [row.get("events") for row in rows]
    if any(of_span is not None for of_span in events):
        spans = zip(*ordered, strict=True)
        events = [
            None if of_span is None else events_of(of_span, span)
            for of_span, span in zip(events, spans, strict=True)
        ]
    trace_ids = [row["trace_id"] for row in rows]
    texts = {trace_id: ids.trace_text(trace_id) for trace_id in set(trace_ids)}
    return SpanColumns(ordered, events, [texts[trace_id] for trace_id in trace_ids])


def _spans(rows: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    return _span_columns(rows).rows()


def _logs(rows: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    columns = columns_of(LOGS, rows)
    _name_services(columns, rows)
    _complete(columns, "id", (uuid.uuid4() for _ in rows))
    return map(Row, repeat(LOGS.name), zip(*in_order(LOGS, columns, len(rows)), strict=True))


def _points(rows: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    columns = columns_of(POINTS, rows)
    nothing = [None] * len(rows)
    starts = columns.get("start_timestamp", nothing)
    for lesser, greater in (("min", "max"), ("start_timestamp", "timestamp")):
        if lesser in columns and greater in columns:
            pairs = zip(columns[lesser], columns[greater], strict=True)
            if any(a is not None and b is not None and a > b for a, b in pairs):
                raise NotPlain
    # Points of one series differ in their time alone.
    known: dict[Any, uuid.UUID] = {}

    def computed() -> Iterator[uuid.UUID]:
        encoded = columns.get("attributes", nothing)
        for row, series in zip(rows, zip(encoded, starts, strict=True), strict=True):
            if series not in known:
                known[series] = ids.data_point_id(
                    attributes=row.get("attributes"), start_timestamp=series[1]
                )
            yield known[series]

    _complete(columns, "id", computed())
    return map(Row, repeat(POINTS.name), zip(*in_order(POINTS, columns, len(rows)), strict=True))


_TOGETHER: Final[dict[Prepare, tuple[type[Base], Callable[..., Iterator[Row]]]]] = {
    prepare_span: (TraceSpan, _spans),
    prepare_log: (LogRecord, _logs),
    prepare_data_point: (MetricDataPoint, _points),
}


def _complete(columns: dict[str, Column], name: str, values: Iterable[Any]) -> None:
    given = columns.get(name)
    columns[name] = list(values) if given is None else _either(given, values)


def _either(first: Iterable[Any], then: Iterable[Any]) -> Column:
    return [b if a is None else a for a, b in zip(first, then, strict=True)]


def _name_services(columns: dict[str, Column], rows: Sequence[Mapping[str, Any]]) -> None:
    """Where a row does not name its service, its resource may."""
    if None in columns.get("service_name", (None,)):
        resources = [row.get("resource_attributes") or _NOTHING for row in rows]
        # Rows of one process share their resource, mostly as one object.
        known = {id(resource): service_of(resource) for resource in resources}
        _complete(columns, "service_name", (known[id(resource)] for resource in resources))


def _add_durations(columns: dict[str, Column]) -> None:
    """From start to end: the microseconds, and the nanoseconds beyond them."""
    if "end_time" not in columns:
        return
    gaps = [
        None if end is None else (end - start) // _MICROSECOND
        for end, start in zip(columns["end_time"], columns["start_time"], strict=True)
    ]
    if "start_ns" in columns or "end_ns" in columns:
        nothing = [None] * len(gaps)
        exact = [
            None if gap is None else gap * 1000 + (end or 0) - (start or 0)
            for gap, end, start in zip(
                gaps,
                columns.get("end_ns", nothing),
                columns.get("start_ns", nothing),
                strict=True,
            )
        ]
        gaps = [None if gap is None else gap // 1000 for gap in exact]
        columns["duration_ns"] = [None if gap is None else gap % 1000 for gap in exact]
    if min((gap for gap in gaps if gap is not None), default=0) < 0:
        raise NotPlain
    columns["duration_us"] = gaps
