"""Prepared rows as lines of text, and back: the format of a spool's files.

A line is the CRC-32 of a JSON object in hex, the object's length in bytes, and the object::

    5d41402a 118 {"table":"logs","values":{"id":"…","timestamp":"…","body":"…"}}

The object names its columns, so that a version with other columns can read it, and leaves out those
that are NULL. Values are what JSON has for them; UUIDs, times, decimals and encoded JSON are text,
which the columns' types turn back. JSON text has no line break, so whatever happens to a line, the
next one is found.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson
from sqlalchemy import DateTime, Double, Numeric
from sqlalchemy import Uuid as UuidType
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine

from observatory_storage import jsonb
from observatory_storage.rows import COLUMNS, Row
from observatory_storage.rows import tables as row_tables
from observatory_storage.writers.load import repaired
from observatory_storage.writers.tables import TABLES

__all__ = ["Record", "encode", "read"]

_HEAD: Final = re.compile(rb"([0-9a-f]{8}) ([1-9][0-9]{0,17}) ")
# orjson's own text of a datetime is not always right.
_OPTIONS: Final = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_APPEND_NEWLINE
_VERSION: Final = jsonb.EMPTY_OBJECT[:1]


class Record(NamedTuple):
    """What was found at a place of a file.

    Attributes:
        end: where the next one begins; beyond the file's end for one that lacks its line break.
        row: the row; None where it cannot be read.
        torn: the file ends before the record does, as when its writer was killed.
        unknown: columns that this version does not have, and that the row came without.
    """

    end: int
    row: Row | None
    torn: bool = False
    unknown: frozenset[str] = frozenset()


def encode(row: Row) -> bytes:
    """The row as a line."""
    try:
        text = _dumps(row)
    except TypeError:  # a lone surrogate, which is repaired now instead of at the database
        events = None if row.events is None else tuple(map(repaired, row.events))
        name = jsonb.clean_text(row.trace_text)
        text = _dumps(Row(row.table, repaired(row.values), events, name))
    return b"%08x %d %b" % (zlib.crc32(text[:-1]), len(text) - 1, text)


def _dumps(row: Row) -> bytes:
    record: dict[str, Any] = {"table": row.table, "values": _named(row.table, row.values)}
    if row.events is not None:
        record["events"] = [_named("trace_events", event) for event in row.events]
    if row.trace_text:
        record["trace_text"] = row.trace_text
    return orjson.dumps(record, _as_text, _OPTIONS)


def _named(table: str, values: tuple[Any, ...]) -> dict[str, Any]:
    pairs = zip(COLUMNS[table], values, strict=True)
    return {column: value for column, value in pairs if value is not None}


def _as_text(value: Any) -> str:
    if isinstance(value, bytes):  # encoded JSON: a version byte, then the text
        return value[1:].decode()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (Decimal, UUID)):
        return str(value)
    raise TypeError(f"{type(value).__name__} is no value of a prepared row")


def read(data: bytes, start: int = 0) -> Iterator[Record]:
    """The records of a file's content, in order.

    A line that cannot be read (the checksum is another, or this version knows no such table) is a
    record without a row, and the next line is read again.
    """
    while start < len(data):
        row, unknown, end = _read_at(data, start)
        yield Record(end, row, torn=row is None and end > len(data), unknown=unknown)
        start = end


def _read_at(data: bytes, start: int) -> tuple[Row | None, frozenset[str], int]:
    """The row here, the columns it came without, and where the next line begins."""
    head = _HEAD.match(data, start)
    if head is not None:
        begin, end = head.end(), head.end() + int(head[2])
        text = data[begin:end]
        if end <= len(data) and zlib.crc32(text) == int(head[1], 16):
            try:
                return *_decoded(orjson.loads(text)), end + 1
            except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError):
                # Written so by another version.
                return None, frozenset(), end + 1
    line_break = data.find(b"\n", start)
    return None, frozenset(), line_break + 1 if line_break >= 0 else len(data) + 1


def _decoded(record: Mapping[str, Any]) -> tuple[Row, frozenset[str]]:
    table = record["table"]
    unknown = set(record["values"]) - _READERS[table].keys()
    events = record.get("events")
    if events is not None:
        for event in events:
            unknown |= set(event) - _READERS["trace_events"].keys()
        events = tuple(_ordered("trace_events", event) for event in events)
    values = _ordered(table, record["values"])
    return Row(table, values, events, record.get("trace_text", "")), frozenset(unknown)


def _ordered(table: str, named: Mapping[str, Any]) -> tuple[Any, ...]:
    """The values in the order of the table's columns; the defaults of those it is silent of."""
    at = _PLACES[table]
    readers = _READERS[table]
    values = _DEFAULTS[table].copy()
    for column, value in named.items():
        if column in readers:
            reader = readers[column]
            values[at[column]] = value if reader is None else reader(value)
    return tuple(values)


def _reader(kind: TypeEngine[Any]) -> Callable[[Any], Any] | None:
    """What makes a value of a column of this type out of its text; None for JSON's own."""
    match kind:
        case JSONB():
            return lambda text: _VERSION + text.encode()
        case UuidType():
            return UUID
        case DateTime():
            return datetime.fromisoformat
        case Double():
            return None
        case Numeric():
            return Decimal
        case _:
            return None


_ROW_TABLES: Final = (
    row_tables.TRACES,
    row_tables.SPANS,
    row_tables.EVENTS,
    row_tables.METRICS,
    row_tables.POINTS,
    row_tables.LOGS,
)
_PLACES: Final = {table.name: table.at for table in _ROW_TABLES}
_DEFAULTS: Final = {table.name: table.defaults for table in _ROW_TABLES}
_READERS: Final = {
    name: {column: _reader(writer.table.c[column].type) for column in COLUMNS[name]}
    for name, writer in TABLES.items()
}
