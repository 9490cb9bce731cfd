"""The format of spool files: encodes prepared rows as lines of text, and decodes them.

A line is the CRC-32 of a JSON object in hex, the object's length in bytes, and the object::

    5d41402a 118 {"table":"logs","values":{"id":"…","timestamp":"…","body":"…"}}

The object names its columns, so a version with other columns can read it. It leaves out columns
that are NULL. UUIDs, times, decimals and encoded JSON are stored as text, and decoded by the types
of the columns. JSON text contains no line break, so a damaged line does not affect the next one.
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
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine

from observatory_storage import jsonb
from observatory_storage.errors import ValidationError
from observatory_storage.rows import CHECKS, Row
from observatory_storage.tables import EVENTS, TABLES, TableDefinition, Values, table_named

__all__ = ["Record", "encode", "read"]

_HEAD: Final = re.compile(rb"([0-9a-f]{8}) ([1-9][0-9]{0,17}) ")
# orjson's own text of a datetime is not always right.
_OPTIONS: Final = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_APPEND_NEWLINE
_VERSION: Final = jsonb.EMPTY_OBJECT[:1]


class Record(NamedTuple):
    """A record of a spool file, readable or not.

    Attributes:
        end: the offset of the next record; beyond the end of the file if the line break is missing.
        row: the row; None if it cannot be read.
        problem: the reason why the row cannot be read.
        torn: whether the file ends within the record, because its writer was killed.
        unknown: the columns of the record that this version does not have. The row is without them.
    """

    end: int
    row: Row | None
    problem: str = ""
    torn: bool = False
    unknown: frozenset[str] = frozenset()


def encode(row: Row) -> tuple[bytes, int]:
    """The row as a line, and the number of its texts that were repaired.

    Raises:
        ValidationError: its table is not in the registry.
    """
    repairs = 0
    try:
        text = _dumps(row)
    except TypeError:  # a lone surrogate, which is repaired now instead of at the database
        cleaned = row.with_clean_text()
        repairs = cleaned.repairs - row.repairs
        text = _dumps(cleaned)
    return b"%08x %d %b" % (zlib.crc32(text[:-1]), len(text) - 1, text), repairs


def _dumps(row: Row) -> bytes:
    named = _named(table_named(row.table), row.values)
    record: dict[str, Any] = {"table": row.table, "values": named}
    if row.events is not None:
        record["events"] = [_named(EVENTS, event) for event in row.events]
    if row.trace_text:
        record["trace_text"] = row.trace_text
    return orjson.dumps(record, _as_text, _OPTIONS)


def _named(table: TableDefinition, values: Values) -> dict[str, Any]:
    pairs = zip(table.columns, values, strict=True)
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

    A line that cannot be read (its checksum is wrong, or its table is unknown) gives a record
    without a row. Reading continues with the next line.
    """
    while start < len(data):
        record = _read_at(data, start)
        yield record
        start = record.end


def _read_at(data: bytes, start: int) -> Record:
    head = _HEAD.match(data, start)
    if head is not None:
        begin, end = head.end(), head.end() + int(head[2])
        text = data[begin:end]
        if end <= len(data) and zlib.crc32(text) == int(head[1], 16):
            try:
                row, unknown = _decoded(orjson.loads(text))
            except ValidationError as error:  # a table of another version
                return Record(end + 1, None, str(error))
            except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
                return Record(end + 1, None, f"written by another version: {error!r}")
            return Record(end + 1, row, unknown=unknown)
    line_break = data.find(b"\n", start)
    if line_break < 0:
        return Record(len(data) + 1, None, torn=True)
    return Record(line_break + 1, None, "its checksum or length is wrong")


def _decoded(record: Mapping[str, Any]) -> tuple[Row, frozenset[str]]:
    """The row, and the columns of the record that this version does not have."""
    table = table_named(record["table"])
    unknown = set(record["values"]) - _READERS[table.name].keys()
    events = record.get("events")
    if events is not None:
        for event in events:
            unknown |= set(event) - _READERS[EVENTS.name].keys()
        events = tuple(_ordered(EVENTS, event) for event in events)
    values = _ordered(table, record["values"])
    return Row(table.name, values, events, record.get("trace_text", "")), frozenset(unknown)


def _ordered(table: TableDefinition, named: Mapping[str, Any]) -> Values:
    """The values in the order of the table's columns, with defaults for missing ones."""
    readers = _READERS[table.name]
    values = CHECKS[table.name].defaults.copy()
    for column, value in named.items():
        if column in readers:
            reader = readers[column]
            values[table.position[column]] = value if reader is None else reader(value)
    return tuple(values)


def _reader(kind: TypeEngine[Any]) -> Callable[[Any], Any] | None:
    """The function that decodes a value of this type from text; None for JSON's own types."""
    match kind:
        case JSONB():
            return lambda text: _VERSION + text.encode()
        case sa.Uuid():
            return UUID
        case sa.DateTime():
            return datetime.fromisoformat
        case sa.Double():
            return None
        case sa.Numeric():
            return Decimal
        case _:
            return None


_READERS: Final = {
    name: {column: _reader(table.table.c[column].type) for column in table.columns}
    for name, table in TABLES.items()
}
