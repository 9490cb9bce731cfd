"""Many rows prepared column by column, which costs a third of preparing them one by one.

A row for which that does not work (a value is not valid or has to be repaired) is prepared by
itself, by `prepare`. Both give equal rows.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, cast

from observatory_storage import ids
from observatory_storage.errors import BatchError, Rejected, ValidationError
from observatory_storage.rows.column_checks import Column, NotColumnar, columns_of, has_gaps
from observatory_storage.rows.column_rows import complete, name_services, rows_of
from observatory_storage.rows.prepare import PREPARE, prepare
from observatory_storage.rows.prepare_span import with_error_message
from observatory_storage.rows.row import Row, as_mapping
from observatory_storage.rows.span_columns import span_rows
from observatory_storage.rows.table_checks import CHECKS
from observatory_storage.tables import DATA_POINTS, SPANS, TableDefinition

__all__ = ["PART", "prepare_all", "prepare_many"]

# Rows that are prepared together: enough to spread the cost of a column, and few enough to stay in
# the processor's cache and to keep a server from waiting for the first.
PART: Final = 100
_FEW: Final = 8
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
        name_services(columns, rows)
    if "id" in table.position and has_gaps(columns.get("id", (None,))):
        complete(columns, "id", ids.random_uuids(len(rows)))
    return rows_of(table, columns, len(rows))


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
        complete(columns, "id", _series_ids(rows, columns.get("attributes", nothing), starts))
    return rows_of(DATA_POINTS, columns, len(rows))


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
    SPANS.name: span_rows,
    DATA_POINTS.name: _data_point_rows,
}
