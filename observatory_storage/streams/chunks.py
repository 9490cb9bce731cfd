"""Entries of a stream: rows of one table, many in an entry, in MessagePack.

An entry for each row would cost the publisher about twenty times as much CPU. An entry names its
columns, so that publishers and readers of different versions understand each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from operator import itemgetter
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from observatory_storage import jsonb
from observatory_storage.streams.streamed_signals import Signal
from observatory_storage.tables import Values

__all__ = ["MAX_ROWS", "ROWS_FIELD", "Chunk", "ChunkEncoder", "decode_chunk"]

ROWS_FIELD: Final = b"rows"
"""The field of an entry that has everything."""
MAX_ROWS: Final = 100
"""The most rows of an entry. A consumer that dies repeats at most so many."""
_VERSION: Final = 1
_Ext: Final = msgspec.msgpack.Ext
_LEFT_OUT: Final = _Ext(1, b"")
# A row whose payloads take more is published without them.
_MAX_PAYLOAD_BYTES: Final = 16_384
_MAX_CHUNK_BYTES: Final = 65_536


class Chunk(NamedTuple):
    """The content of an entry.

    Attributes:
        publisher: the process that published it.
        sequence: counts the entries of this publisher and signal, from 1.
        lost: the rows that the publisher could not publish since its entry before.
        rows: the values of the rows by column.
    """

    publisher: str
    sequence: int
    lost: int
    rows: Sequence[Mapping[str, Any]]


class ChunkEncoder:
    """Encodes the rows of a signal.

    Args:
        signal: the signal.
        publisher: names this process.
        payloads: whether payloads are published.
    """

    def __init__(self, signal: Signal, publisher: str, *, payloads: bool) -> None:
        self._signal = signal
        self._publisher = publisher
        self._payloads = payloads
        self._columns = signal.columns(payloads=payloads)
        table = signal.table
        self._chosen = itemgetter(*table.positions(*self._columns))
        self._payload = table.positions(*sorted(signal.payload))
        self._payload_of = itemgetter(*self._payload)
        self._encode = msgspec.msgpack.Encoder(uuid_format="bytes").encode
        self._sequence = 0

    def chunks(self, rows: Iterable[Values], lost: int) -> Iterator[tuple[bytes, int]]:
        """The rows as entries, each with the number of its rows.

        Args:
            rows: the values of rows, in the order of their table's columns.
            lost: how many rows were lost before these.
        """
        waiting: list[Any] = []
        size = 0
        for values in rows:
            if self._payloads:
                row, row_size = self._with_payload(values)
                if waiting and size + row_size > _MAX_CHUNK_BYTES:
                    yield self._chunk(waiting, lost), len(waiting)
                    waiting, size, lost = [], 0, 0
                size += row_size
            else:
                row = self._chosen(values)
            waiting.append(row)
            if len(waiting) == MAX_ROWS:
                yield self._chunk(waiting, lost), len(waiting)
                waiting, size, lost = [], 0, 0
        if waiting:
            yield self._chunk(waiting, lost), len(waiting)

    def traces(self, ids: Sequence[UUID], lost: int) -> Iterator[tuple[bytes, int]]:
        """The ids of traces as entries, each with the number of its ids."""
        for start in range(0, len(ids), MAX_ROWS):
            part = [(key.bytes,) for key in ids[start : start + MAX_ROWS]]
            yield self._chunk(part, lost), len(part)
            lost = 0

    def _with_payload(self, values: Values) -> tuple[Values, int]:
        """The published values of a row, and about how many bytes its payloads take.

        Large payloads are left out: in their place is a MessagePack extension.
        """
        size = sum(map(len, filter(None, self._payload_of(values))))
        if size <= _MAX_PAYLOAD_BYTES:
            return self._chosen(values), size
        row = list(values)
        for position in self._payload:
            row[position] = _LEFT_OUT
        return self._chosen(row), 0

    def _chunk(self, rows: Sequence[Any], lost: int) -> bytes:
        self._sequence += 1
        return self._encode((_VERSION, self._publisher, self._sequence, lost, self._columns, rows))


def decode_chunk(signal: Signal, content: bytes) -> Chunk | None:
    """The content of an entry; None if a later version has written it in another form."""
    version, publisher, sequence, lost, *more = msgspec.msgpack.decode(content)
    if version != _VERSION:
        return None
    columns, rows = more
    form = _form_of(signal, tuple(columns))
    return Chunk(publisher, sequence, lost, [form.read(row) for row in rows])


class _Form(NamedTuple):
    """How rows of these columns are read.

    Attributes:
        names: the columns.
        convert: what makes the types of columns of those that MessagePack has, by position.
        unknown: columns that the publisher's version does not have. It writes NULL there.
    """

    names: Sequence[str]
    convert: Sequence[tuple[int, Callable[[Any], Any]]]
    unknown: Mapping[str, None]

    def read(self, values: list[Any]) -> Mapping[str, Any]:
        for position, converted in self.convert:
            value = values[position]
            if value is not None and type(value) is not _Ext:
                values[position] = converted(value)
        row = dict(zip(self.names, values, strict=True))
        if any(type(value) is _Ext for value in values):
            row = {name: value for name, value in row.items() if type(value) is not _Ext}
        return {**row, **self.unknown} if self.unknown else row


@lru_cache
def _form_of(signal: Signal, names: Sequence[str]) -> _Form:
    columns = signal.table.table.c
    convert: list[tuple[int, Callable[[Any], Any]]] = []
    for position, name in enumerate(names):
        if name in signal.table.json_columns:
            convert.append((position, jsonb.decode))
        elif name in columns:
            kind = columns[name].type.python_type
            if kind in _CONVERT:
                convert.append((position, _CONVERT[kind]))
    unknown = dict.fromkeys(set(signal.columns(payloads=False)).difference(names))
    return _Form(names, convert, unknown)


_CONVERT: Final[dict[type, Callable[[Any], Any]]] = {
    Decimal: Decimal,
    UUID: lambda value: UUID(bytes=value),
    float: float,
}
