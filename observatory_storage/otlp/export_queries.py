"""Queries of the export. Each reads page by page, and each page is a transaction of its own.

So no transaction stays open between pages, however slowly the caller consumes them.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import islice
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Select,
    Table,
    Text,
    any_,
    cast,
    literal,
    select,
    tuple_,
)
from sqlalchemy.orm import Session

from observatory_storage import ids, jsonb
from observatory_storage.errors import NotFound, ValidationError, translated
from observatory_storage.models import (
    Base,
    LogRecord,
    Metric,
    MetricDataPoint,
    Trace,
    TraceEvent,
    TraceSpan,
)
from observatory_storage.otlp.traces import COLUMNS
from observatory_storage.payloads import DamagedFrame, fill_whole, log_damage, values_of
from observatory_storage.repositories import LogFilters, MetricFilters, TraceFilters
from observatory_storage.repositories.logs.framed_records import FramedRecords
from observatory_storage.repositories.reading.filter_fields import within
from observatory_storage.repositories.traces.repository import TraceRepository
from observatory_storage.tables import EVENTS, LOGS, SPAN_KEY_OF_EVENT, SPANS

__all__ = [
    "VALUES",
    "Ids",
    "events_of",
    "log_pages",
    "metric_pages",
    "point_pages",
    "span_pages",
    "traces_wanted",
    "with_origin",
]

Ids = str | UUID | Iterable[str | UUID]
Mapped = Mapping[str, Any]
Row = dict[str, Any]
T = TypeVar("T")

VALUES: Final = "values"
"""The key under which the row of a span has its values in a payload frame."""

# These are the same for many rows. They are compared as text, and read once.
_OF_ORIGIN: Final = ("resource_attributes", "scope_attributes")
_SPAN_KEY: Final = itemgetter(*SPAN_KEY_OF_EVENT)
_BATCH_SIZE: Final = 100  # traces or metrics whose spans or data points one statement reads
_LISTED_BATCHES: Final = 5  # batches of traces that one statement lists
# Of spans these are read as text, so that only one span at a time has them as objects: the garbage
# collector visits all objects of a page again and again.
_TEXT_OF_SPAN: Final = (*_OF_ORIGIN, "attributes", "links")
# Each statement sorts all spans of its traces, however few it returns.
_SPAN_PAGES_READ: Final = 2


class Wanted(NamedTuple):
    """Some traces, and the start times of the first and the last of their spans."""

    traces: list[UUID]
    first: datetime
    last: datetime


def traces_wanted(engine: Engine, wanted: TraceFilters | Ids | None) -> Iterator[Wanted]:
    """The traces to export, in batches.

    Raises:
        NotFound: there is no trace with one of the ids.
        ValidationError: an id is invalid.
    """
    if wanted is None or isinstance(wanted, TraceFilters):
        filters = replace(wanted or TraceFilters(), limit=_LISTED_BATCHES * _BATCH_SIZE)
        after: str | None = None
        while True:
            with Session(engine) as session:
                page = TraceRepository(session).list(filters, after=after)
            listed = ((trace.id, trace.start_time, trace.last_span_start) for trace in page)
            yield from map(_bounded, _chunks(listed, _BATCH_SIZE))
            after = page.next
            if after is None:
                return
    for some in _chunks(_unique(_given(wanted), ids.trace_uuid), _BATCH_SIZE):
        columns = (Trace.id, Trace.start_time, Trace.last_span_start)
        former = _former(some)
        statement = select(*columns).where(Trace.id.in_([*some, *former]))
        with translated(), engine.connect() as connection:
            found = [(row[0], row[1], row[2]) for row in connection.execute(statement)]
        _check_all_found("trace", some, {former.get(row[0], row[0]) for row in found})
        yield _bounded(found)


def _former(keys: Sequence[UUID]) -> dict[UUID, UUID]:
    """The ids that an earlier version gave to traces of 64 bits, each with the present one."""
    return {former: key for key in keys if (former := ids.former_trace_uuid(key)) is not None}


def _bounded(found: Sequence[tuple[UUID, datetime, datetime | None]]) -> Wanted:
    first = min(start for _, start, _ in found)
    # A trace without spans has no last span; any bound will do.
    last = max(last or start for _, start, last in found)
    return Wanted([trace for trace, _, _ in found], first, last)


def span_pages(engine: Engine, wanted: Wanted, size: int) -> Iterator[list[Row]]:
    """The rows of all spans of some traces, trace by trace, their attributes and links as text.

    A row with previews among its attributes has the values, as JSON text, under `VALUES`.
    """
    table = _table(TraceSpan)
    statement = select(*(table.c[name] for name in (*COLUMNS, "payload_frame"))).where(
        _is_one_of(table.c.trace_id, wanted.traces),
        table.c.start_time.between(wanted.first, wanted.last),
    )
    key = list(table.primary_key.columns)
    for rows in _pages(engine, statement, key, _SPAN_PAGES_READ * size, _TEXT_OF_SPAN):
        for start in range(0, len(rows), size):
            if page := _with_values(engine, rows[start : start + size]):
                yield page


def _with_values(engine: Engine, spans: list[Row]) -> list[Row]:
    """The spans, those with previews with their values. What has been deleted meanwhile is left."""
    moved = [span for span in spans if span["payload_frame"] is not None]
    if not moved:
        return spans
    with translated(), engine.connect() as connection:
        found = values_of(connection, SPANS, moved, _TEXT_OF_SPAN)
    for span, values in zip(moved, found, strict=True):
        span[VALUES] = {} if isinstance(values, DamagedFrame) else values
    log_damage(values for values in found if isinstance(values, DamagedFrame))
    return [span for span in spans if span.get(VALUES, ...) is not None]


def events_of(engine: Engine, spans: Sequence[Mapped]) -> dict[Any, list[Row]]:
    """The events of a page of spans, in order, by (trace id, span id, start, its nanoseconds)."""
    table = _table(TraceEvent)
    starts = [span["start_time"] for span in spans]
    key = tuple_(table.c.trace_id, table.c.span_id)
    first, last = (tuple_(span["trace_id"], span["span_id"]) for span in (spans[0], spans[-1]))
    statement = (
        select(table)
        .where(
            _is_one_of(table.c.trace_id, {span["trace_id"] for span in spans}),
            key >= first,
            key <= last,
            table.c.span_start_time.between(min(starts), max(starts)),
        )
        .order_by(*table.primary_key.columns)
    )
    found: dict[Any, list[Row]] = {}
    with translated(), engine.connect() as connection:
        events = _mappings(connection, statement)
        log_damage(fill_whole(connection, EVENTS, events))
        for event in events:
            found.setdefault(_SPAN_KEY(event), []).append(event)
    return found


def _is_one_of(column: Column[Any], values: Iterable[Any]) -> ColumnElement[bool]:
    # As one parameter: SQLAlchemy writes each value of IN into the statement.
    return column == any_(literal(list(values), ARRAY(column.type)))


def metric_pages(engine: Engine, wanted: MetricFilters | Ids | None) -> Iterator[list[Row]]:
    """The rows of the metrics to export, in batches.

    Raises:
        NotFound: there is no metric with one of the ids.
        ValidationError: an id is invalid.
    """
    table = _table(Metric)
    if wanted is None or isinstance(wanted, MetricFilters):
        conditions = wanted.conditions() if wanted else []
        statement = select(table).where(*conditions)
        yield from _pages(engine, statement, [table.c.id], _BATCH_SIZE)
        return
    for some in _chunks(_unique(_given(wanted), _metric_id), _BATCH_SIZE):
        page = next(
            _pages(engine, select(table).where(table.c.id.in_(some)), [table.c.id], len(some)),
            [],
        )
        _check_all_found("metric", some, {row["id"] for row in page})
        yield page


def point_pages(
    engine: Engine,
    metrics: Sequence[Mapped],
    size: int,
    start_time: datetime | None = None,
    end_time: datetime | None = None,
) -> Iterator[list[Row]]:
    """The rows of data points of some metrics in [start_time, end_time), metric by metric."""
    table = _table(MetricDataPoint)
    statement = select(table).where(
        table.c.metric_id.in_([row["id"] for row in metrics]),
        *within(MetricDataPoint.timestamp, start_time, end_time),
    )
    return _pages(engine, statement, list(table.primary_key.columns), size)


def log_pages(engine: Engine, wanted: LogFilters | Ids | None, size: int) -> Iterator[list[Row]]:
    """The rows of the log records to export, oldest first. Ids are those of traces.

    Raises:
        ValidationError: an id is invalid.
    """
    table = _table(LogRecord)
    key = list(table.primary_key.columns)
    if wanted is None or isinstance(wanted, LogFilters):
        filters = wanted or LogFilters()
        with translated(), engine.connect() as connection:
            conditions = FramedRecords(connection, filters).conditions()
        for page in _pages(engine, select(table).where(*conditions), key, size):
            if found := _whole_logs(engine, page, filters):
                yield found
        return
    for some in _chunks(_unique(_given(wanted), ids.trace_uuid), _BATCH_SIZE):
        of_traces = table.c.trace_id.in_([*some, *_former(some)])
        for page in _pages(engine, select(table).where(of_traces), key, size):
            yield _whole_logs(engine, page, LogFilters())


def _whole_logs(engine: Engine, page: list[Row], filters: LogFilters) -> list[Row]:
    """The records of a page that match, with their whole values."""
    if all(row["payload_frame"] is None for row in page):
        return page
    with translated(), engine.connect() as connection:
        log_damage(fill_whole(connection, LOGS, page, _OF_ORIGIN))
        return FramedRecords(connection, filters).decided(page)


def _pages(
    engine: Engine,
    statement: Select[Any],
    key: Sequence[Column[Any]],
    size: int,
    as_text: Container[str] = _OF_ORIGIN,
) -> Iterator[list[Row]]:
    """The statement's rows in the order of a unique key, one page in memory at a time.

    Args:
        as_text: the columns that are read as text.
    """
    last: tuple[Any, ...] | None = None
    while True:
        # One row more tells whether there is another page.
        page = statement.order_by(*key).limit(size + 1)
        if last is not None:
            page = page.where(tuple_(*key) > tuple_(*last))
        with translated(), engine.connect() as connection:
            rows = _mappings(connection, _as_text(page, key, as_text))
        is_last = len(rows) <= size
        del rows[size:]
        if rows:
            last = tuple(rows[-1][column.name] for column in key)
            yield rows
        if is_last:
            return


def _as_text(page: Select[Any], key: Sequence[Column[Any]], names: Container[str]) -> Select[Any]:
    """The page with some of its columns as text.

    They are converted above the limit. Below it, large values of all rows would be sorted as text.
    """
    rows = page.subquery("page")
    return select(
        *(
            cast(column, Text).label(column.name) if column.name in names else column
            for column in rows.c
        )
    ).order_by(*(rows.c[column.name] for column in key))  # which costs nothing: they are in order


def with_origin(row: Mapped) -> Mapped:
    """The row with the attributes of its resource and its scope, which it has as text."""
    return {**row, **{name: jsonb.loads(row[name]) for name in _OF_ORIGIN}}


def _mappings(connection: Connection, statement: Select[Any]) -> list[Row]:
    result = connection.execute(statement)
    names = list(result.keys())
    # Many values of each row are looked up, for which a dict is the fastest.
    return [dict(zip(names, row, strict=True)) for row in result.all()]


def _table(model: type[Base]) -> Table:
    table = model.__table__
    assert isinstance(table, Table)
    return table


def _given(wanted: Any) -> Iterable[Any]:
    if isinstance(wanted, (str, UUID)):
        return [wanted]
    if isinstance(wanted, Iterable):
        return wanted
    raise ValidationError("filters", wanted, "must be filters, an id or ids")


def _metric_id(value: Any) -> UUID:
    return ids.uuid_of(value, "metric_id")


def _unique(given: Iterable[Any], convert: Any) -> Iterator[UUID]:
    """The converted ids in their order, without duplicates."""
    return iter(dict.fromkeys(convert(value) for value in given))


def _chunks(given: Iterator[T], size: int) -> Iterator[list[T]]:
    while chunk := list(islice(given, size)):
        yield chunk


def _check_all_found(what: str, asked: Sequence[UUID], found: set[UUID]) -> None:
    for identifier in asked:
        if identifier not in found:
            raise NotFound(f"there is no {what} {identifier}")
