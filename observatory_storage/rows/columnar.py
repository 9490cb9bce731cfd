"""Many rows prepared column by column, which costs a third of preparing them one by one.

A row for which that does not work (a value is not valid or has to be repaired) is prepared by
itself, by `prepare`. Both give equal rows.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import repeat
from typing import Any, Final, cast

from observatory_storage import ids
from observatory_storage.errors import BatchError, Rejected, ValidationError
from observatory_storage.llm import Courses, facts_by_column
from observatory_storage.rows.column_checks import (
    Column,
    NotColumnar,
    columns_of,
    has_gaps,
    in_order,
)
from observatory_storage.rows.prepare import PREPARE, prepare
from observatory_storage.rows.prepare_span import (
    SUMS,
    USAGE,
    encoded_details,
    end_of,
    events_of,
    source_of_cost,
    total_of,
    with_error_message,
)
from observatory_storage.rows.row import Row, as_mapping
from observatory_storage.rows.table_checks import CHECKS, service_of
from observatory_storage.tables import DATA_POINTS, SPANS, TableDefinition
from observatory_storage.times import MICROSECOND

__all__ = ["PART", "prepare_all", "prepare_many", "prepare_span_columns"]

# Rows that are prepared together: enough to spread the cost of a column, and few enough to stay in
# the processor's cache and to keep a server from waiting for the first.
PART: Final = 100
_FEW: Final = 8
_NOTHING: Final[Mapping[str, Any]] = {}
# The ids of series by their encoded attributes and their start, since most points are of few
# series. At most about 2 MB.
_KNOWN_SERIES: Final[dict[tuple[bytes | None, datetime | None], uuid.UUID]] = {}
_MOST_SERIES: Final = 4096
_MOST_SERIES_BYTES: Final = 512


def prepare_all(table: TableDefinition, rows: Sequence[Any]) -> list[Row]:
    """All rows, ready to write.

    Raises:
        ValidationError: names the first that is not valid by its index.
    """

    def refuse(index: int, _: Any, error: ValidationError) -> None:
        raise ValidationError(error.field, error.value, error.rule, index) from None

    return _prepared(table, rows, refuse)


def prepare_many(
    table: TableDefinition, rows: Iterable[Any]
) -> tuple[list[Row], BatchError | None]:
    """The good rows, ready to write, and one error that lists the others."""
    rejected: list[Rejected] = []

    def refuse(index: int, row: Any, error: ValidationError) -> None:
        rejected.append(Rejected(index, row, error))

    prepared = _prepared(table, list(rows), refuse)
    return prepared, BatchError(rejected) if rejected else None


def _prepared(
    table: TableDefinition, rows: Sequence[Any], refuse: Callable[[int, Any, ValidationError], None]
) -> list[Row]:
    """The rows in parts: column by column, apart from those for which that does not work.

    Args:
        refuse: called with the index of a row that is not valid, the row, and the error.
    """
    prepared: list[Row] = []
    for start in range(0, len(rows), PART):
        part = rows[start : start + PART]
        together = _with_prepared(table, part)
        if None not in together:
            prepared += cast(list[Row], together)
            continue
        for index, (row, ready) in enumerate(zip(part, together, strict=True), start):
            try:
                prepared.append(prepare(table, row) if ready is None else ready)
            except ValidationError as error:
                refuse(index, row, error)
    return prepared


def _with_prepared(table: TableDefinition, rows: Sequence[Any]) -> list[Row | None]:
    """As `_prepare_columns`. Rows that are prepared already stay as they are."""
    given = [row for row in rows if type(row) is not Row]
    if len(given) == len(rows):
        return _prepare_columns(table, rows)
    others = iter(_prepare_columns(table, given))
    return [row if type(row) is Row else next(others) for row in rows]


def _prepare_columns(table: TableDefinition, rows: Sequence[Any]) -> list[Row | None]:
    """The rows; None for each that has to be prepared by itself."""
    one_by_one: list[Row | None] = [None] * len(rows)
    own = _COLUMNAR.get(table.name)
    if len(rows) < _FEW or (own is None and table.name in PREPARE):
        return one_by_one
    model = table.model
    try:
        given: list[Mapping[str, Any]] = [
            row if type(row) is dict else as_mapping(row, model) for row in rows
        ]
        if table is SPANS:
            given = list(map(with_error_message, given))
        return list(_plain_rows(table, given) if own is None else own(given))
    except ValidationError:  # some row is not valid; preparing it by itself reports the error
        middle = len(rows) // 2
        return _prepare_columns(table, rows[:middle]) + _prepare_columns(table, rows[middle:])
    except NotColumnar as found:
        odd = found.odd
    rest = [row for index, row in enumerate(rows) if index not in odd]
    others = iter(_prepare_columns(table, rest))
    return [None if index in odd else next(others) for index in range(len(rows))]


def _plain_rows(table: TableDefinition, rows: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    columns = columns_of(CHECKS[table.name], rows)
    if "service_name" in table.position:
        _name_services(columns, rows)
    if "id" in table.position and has_gaps(columns.get("id", (None,))):
        _complete(columns, "id", ids.random_uuids(len(rows)))
    return _rows_of(table, columns, len(rows))


def _rows_of(table: TableDefinition, columns: dict[str, Column], count: int) -> Iterator[Row]:
    values = zip(*in_order(CHECKS[table.name], columns, count), strict=True)
    return _made(zip(repeat(table.name), values, repeat(None), repeat(""), repeat(0), repeat(None)))


# Makes a `Row` from an iterable of its fields, without the Python code of a NamedTuple's `__new__`.
_make_row: Final[Callable[[tuple[Any, ...]], Row]] = partial(tuple.__new__, Row)


def _made(fields: Iterable[tuple[Any, ...]]) -> Iterator[Row]:
    return map(_make_row, fields)


def _span_rows(rows: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    columns = columns_of(CHECKS[SPANS.name], rows)
    if with_reports := [at for at, own in enumerate(columns.get("reported_usage", ())) if own]:
        raise NotColumnar(with_reports)
    _name_services(columns, rows)
    trace_ids = [row["trace_id"] for row in rows]
    texts = {trace_id: ids.trace_text(trace_id) for trace_id in set(trace_ids)}
    return _completed_spans(
        columns,
        [row.get("attributes") or _NOTHING for row in rows],
        [row.get("resource_attributes") or _NOTHING for row in rows],
        [row.get("events") for row in rows],
        [texts[trace_id] for trace_id in trace_ids],
    )


def prepare_span_columns(
    columns: dict[str, Column],
    attributes: Sequence[Mapping[str, Any]],
    resource_attributes: Sequence[Mapping[str, Any]],
) -> list[Row]:
    """Spans without events, ready to write, from columns whose values are checked already.

    Args:
        columns: the columns, with JSON encoded. No span ends before it starts. Trace ids are UUIDs
            that were given in hex.
        attributes: the attributes of each span.
        resource_attributes: those of its resource; one object for all spans that share it.
    """
    texts = [trace_id.hex for trace_id in columns["trace_id"]]
    events = [()] * len(texts)
    return list(_completed_spans(columns, attributes, resource_attributes, events, texts))


def _completed_spans(
    columns: dict[str, Column],
    attributes: Sequence[Mapping[str, Any]],
    resource_attributes: Sequence[Mapping[str, Any]],
    events: list[Any],
    trace_texts: Sequence[str],
) -> Iterator[Row]:
    """Spans with the columns that are computed from others, and with their events."""
    count = len(attributes)
    _add_durations(columns)
    found = facts_by_column(
        attributes,
        names=columns["name"],
        scope_names=columns.get("scope_name") or [None] * count,
        resource_attributes=resource_attributes,
        courses=Courses(
            columns["start_time"], columns.get("duration_us"), columns.get("status"), events
        ),
    )
    if "token_details" in found:
        found["token_details"] = list(map(encoded_details, found["token_details"]))
    if not USAGE.isdisjoint(columns):
        _add_own_totals(columns, found, count)
    for column, values in found.items():
        _complete(columns, column, values)
    _add_cost_sources(columns, count)
    spans = list(zip(*in_order(CHECKS[SPANS.name], columns, count), strict=True))
    odd = []
    for index in [index for index, given in enumerate(events) if given is not None]:
        try:
            events[index], repairs = (
                events_of(events[index], spans[index]) if events[index] else ((), 0)
            )
        except ValidationError:
            repairs = 1
        if repairs:
            odd.append(index)
    if odd:
        raise NotColumnar(odd)
    return _made(zip(repeat(SPANS.name), spans, events, trace_texts, repeat(0), repeat(None)))


def _data_point_rows(rows: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    columns = columns_of(CHECKS[DATA_POINTS.name], rows)
    nothing = [None] * len(rows)
    starts = columns.get("start_timestamp", nothing)
    for lesser, greater in (("min", "max"), ("start_timestamp", "timestamp")):
        if lesser in columns and greater in columns:
            pairs = zip(columns[lesser], columns[greater], strict=True)
            odd = [
                index
                for index, (a, b) in enumerate(pairs)
                if a is not None and b is not None and a > b
            ]
            if odd:
                raise NotColumnar(odd)
    if has_gaps(columns.get("id", (None,))):
        _complete(columns, "id", _series_ids(rows, columns.get("attributes", nothing), starts))
    return _rows_of(DATA_POINTS, columns, len(rows))


def _series_ids(
    rows: Sequence[Mapping[str, Any]], encoded: Column, starts: Column
) -> list[uuid.UUID]:
    """The ids of data points. Those of one series have equal attributes and starts: one id."""
    if len(_KNOWN_SERIES) > _MOST_SERIES:
        _KNOWN_SERIES.clear()
    series = list(zip(encoded, starts, strict=True))
    found: list[Any] = list(map(_KNOWN_SERIES.get, series))
    if None in found:
        for index, known in enumerate(found):
            if known is None:
                found[index] = ids.data_point_id(
                    attributes=rows[index].get("attributes"), start_timestamp=starts[index]
                )
                if len(encoded[index] or b"") <= _MOST_SERIES_BYTES:
                    _KNOWN_SERIES[series[index]] = found[index]
    return found


_COLUMNAR: Final[dict[str, Callable[[Sequence[Mapping[str, Any]]], Iterator[Row]]]] = {
    SPANS.name: _span_rows,
    DATA_POINTS.name: _data_point_rows,
}


def _complete(columns: dict[str, Column], name: str, values: Iterable[Any]) -> None:
    """Fill in a column where a row does not give it."""
    given = columns.get(name)
    if given is not None and not has_gaps(given):
        return
    columns[name] = (
        list(values)
        if given is None
        else [b if a is None else a for a, b in zip(given, values, strict=True)]
    )


def _name_services(columns: dict[str, Column], rows: Sequence[Mapping[str, Any]]) -> None:
    """Take the service of a row that does not name it from its resource."""
    if None in columns.get("service_name", (None,)):
        resources = [row.get("resource_attributes") or _NOTHING for row in rows]
        # Rows of one process share their resource, mostly as one object.
        known = {id(resource): service_of(resource) for resource in resources}
        _complete(columns, "service_name", (known[id(resource)] for resource in resources))


def _add_own_totals(columns: Mapping[str, Column], found: dict[str, Column], count: int) -> None:
    """The totals of spans some of which give usage, in place of those of their attributes."""
    nothing = [None] * count
    for names, add in SUMS:
        is_total_missing = None in columns.get(names[-1], nothing)
        if is_total_missing and not columns.keys().isdisjoint(names):
            own = zip(*(columns.get(name, nothing) for name in names), strict=True)
            of_attributes = zip(*(found.get(name, nothing) for name in names), strict=True)
            found[names[-1]] = list(map(total_of, own, of_attributes, repeat(add)))


def _add_cost_sources(columns: dict[str, Column], count: int) -> None:
    """Where the costs of spans come from."""
    columns.pop("reported_cost_source", None)
    given = columns.pop("cost_source", None)
    costs = columns.get("total_cost_usd")
    if costs is not None:
        sources = given or [None] * count
        columns["cost_source"] = list(map(source_of_cost, costs, sources))


def _add_durations(columns: dict[str, Column]) -> None:
    """From start to end: the microseconds, and the nanoseconds beyond them."""
    starts = columns["start_time"]
    nothing = [None] * len(starts)
    if "duration_us" in columns:
        _add_ends(columns, nothing)
    if "end_time" not in columns:
        return
    gaps = [
        None if end is None else (end - start) // MICROSECOND
        for end, start in zip(columns["end_time"], starts, strict=True)
    ]
    if not columns.keys().isdisjoint(("start_ns", "end_ns", "duration_ns")):
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
        columns["duration_ns"] = [
            own if gap is None else gap % 1000
            for own, gap in zip(columns.get("duration_ns", nothing), exact, strict=True)
        ]
    if min((gap for gap in gaps if gap is not None), default=0) < 0:
        raise NotColumnar(index for index, gap in enumerate(gaps) if gap is not None and gap < 0)
    columns["duration_us"] = gaps


def _add_ends(columns: dict[str, Column], nothing: Column) -> None:
    """The ends of spans that give how long they took instead."""
    ends = columns["end_time"] = list(columns.get("end_time", nothing))
    took = columns["duration_us"]
    missing = [i for i, end in enumerate(ends) if end is None and took[i] is not None]
    if not missing:
        return
    fractions = columns["end_ns"] = list(columns.get("end_ns", nothing))
    starts, start_ns = columns["start_time"], columns.get("start_ns", nothing)
    took_ns = columns.get("duration_ns", nothing)
    for index in missing:
        ends[index], fractions[index] = end_of(
            starts[index], start_ns[index] or 0, took[index], took_ns[index] or 0
        )
