"""Binary COPY of prepared rows into a table, on the connection's own driver connection.

psycopg converts a `datetime` and a `UUID` in Python, value by value, but integers and bytes in C.
Therefore times are sent as integers and UUIDs as bytes, which are the same on the wire.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.copy import LibpqWriter, Writer
from psycopg.generators import fetch_many
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn
from psycopg.waiting import Wait
from sqlalchemy import Connection, Table

from observatory_storage.read_only_engine import left_replica
from observatory_storage.storing.upsert_target import UpsertTarget
from observatory_storage.tables import Values
from observatory_storage.times import MICROSECOND

__all__ = ["SentBytes", "copy_encoded", "copy_parts", "copy_rows", "encode", "qualified"]

# While the server inserts rows, it stops reading the socket. Up to this many bytes are buffered, so
# that the client continues.
_SEND_BUFFER_BYTES: Final = 8 * 1024 * 1024
# The size of the kernel's part of the buffer. The kernel sends its part even while this thread
# waits for the GIL. Linux reduces the size to the maximum that it allows.
_SOCKET_BYTES: Final = 4 * 1024 * 1024
_POSTGRESQL_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_TIME: Final = "timestamp with time zone"
_BLOCK: Final = 100  # rows
# PostgreSQL parses so many rows of a COPY before it inserts them. When a COPY ends, it inserts what
# it has. So it inserts the first rows of a small batch, too, while this thread prepares others.
_ROWS_UNTIL_INSERTED: Final = 1000
_ROWS_A_COPY: Final = 200
_SENT_AS: Final = {_TIME: "bigint", "uuid": "bytea"}


@dataclass(slots=True)
class SentBytes:
    """The number of bytes sent for rows, including failed attempts."""

    count: int = 0


def copy_rows(
    connection: Connection,
    target: UpsertTarget,
    rows: Iterable[Values],
    table: Table,
    sent: SentBytes | None = None,
) -> None:
    """Copy prepared rows into the table. The rows are consumed while the COPY runs."""
    with _copying(connection, target, table, sent) as copy:
        _write(copy, target, rows)


def copy_parts(
    connection: Connection,
    target: UpsertTarget,
    parts: Iterable[Sequence[Values]],
    table: Table,
    sent: SentBytes | None = None,
    *,
    wider: UpsertTarget | None = None,
) -> None:
    """Copy prepared rows into the table, part by part, by several COPYs.

    A part is consumed while the server inserts the rows before it.

    Args:
        wider: the target of parts whose rows have more columns than `target`.
    """
    remaining = iter(parts)
    following: list[Sequence[Values]] = []

    def take_next() -> None:
        following.extend(islice(remaining, 1))

    def target_of_next() -> UpsertTarget:
        part = following[0]
        return wider if wider and part and len(part[0]) > len(target.columns) else target

    take_next()
    copied = 0
    while following:
        end = copied + _ROWS_A_COPY if copied < _ROWS_UNTIL_INSERTED else math.inf
        into = target_of_next()
        with _copying(connection, into, table, sent, meanwhile=take_next) as copy:
            while following and target_of_next() is into:
                part = following.pop(0)
                _write(copy, into, part)
                copied += len(part)
                if copied >= end:
                    break
                if not following:
                    take_next()


def encode(connection: Connection, target: UpsertTarget, rows: Iterable[Values]) -> list[bytes]:
    """Encode the data of a COPY, while the connection is busy with another COPY."""
    blocks = _Blocks()
    with psycopg.Copy(_driver_of(connection).cursor(), binary=True, writer=blocks) as copy:
        _write(copy, target, rows)
    return blocks.written


def copy_encoded(
    connection: Connection,
    target: UpsertTarget,
    encoded: Sequence[bytes],
    table: Table,
    sent: SentBytes | None = None,
) -> None:
    """Copy data from `encode` into the table."""
    with _copying(connection, target, table, sent) as copy:
        for block in encoded:
            copy.write(block)


class _Blocks(Writer):
    """Collects the data of a COPY."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))


class _SendBuffer(LibpqWriter):
    """Sends the data of a COPY. It waits only if the server is far behind.

    Args:
        cursor: the cursor of the COPY.
        sent: counts the bytes.
        meanwhile: called while the server inserts the last rows.
    """

    def __init__(
        self,
        cursor: psycopg.Cursor[Any],
        sent: SentBytes,
        meanwhile: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(cursor)
        self._sent, self._meanwhile = sent, meanwhile
        self.flush_threshold = _SEND_BUFFER_BYTES
        # Over TCP the kernel tunes the size, unless a size is set.
        with suppress(OSError), socket.socket(fileno=os.dup(cursor.connection.fileno())) as own:
            if own.family == getattr(socket, "AF_UNIX", None):
                own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)

    def write(self, data: Any) -> None:
        self._sent.count += len(data)
        super().write(data)

    def finish(self, exc: BaseException | None = None) -> None:
        if exc is not None or self._meanwhile is None:
            super().finish(exc)
            return
        connection = self.cursor.connection
        connection.wait(_sending_end(connection.pgconn))
        try:
            self._meanwhile()
        except Exception:
            connection.wait(fetch_many(connection.pgconn))  # so that the connection can go on
            raise
        (result,) = connection.wait(fetch_many(connection.pgconn))
        if result.status != ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(result, connection.info.encoding)
        self.cursor._results = [result]


def _sending_end(connection: PGconn) -> Generator[Wait, Any, None]:
    """Tell the server that the COPY ends, without waiting for its result."""
    while not connection.put_copy_end(None):
        yield Wait.W
    while connection.flush():
        yield Wait.W


def _write(copy: psycopg.Copy, target: UpsertTarget, rows: Iterable[Values]) -> None:
    types = target.types
    # Without types, psycopg would send an int as the smallest integer type that holds it.
    copy.set_types([_SENT_AS.get(name, name) for name in types])
    times = [position for position, name in enumerate(types) if name == _TIME]
    uuids = [position for position, name in enumerate(types) if name == "uuid"]
    write_row, remaining = copy.write_row, iter(rows)
    # Column by column within a block, which costs half of converting value by value.
    while block := list(islice(remaining, _BLOCK)):
        columns: list[Sequence[Any]] = list(zip(*block, strict=True))
        for position in times:
            columns[position] = _sent_times(columns[position])
        for position in uuids:
            columns[position] = _sent_uuids(columns[position])
        for row in zip(*columns, strict=True):
            write_row(row)


def _sent_times(moments: Sequence[datetime | None]) -> list[int | None]:
    epoch, unit = _POSTGRESQL_EPOCH, MICROSECOND
    return [None if moment is None else (moment - epoch) // unit for moment in moments]


def _sent_uuids(uuids: Sequence[UUID | None]) -> list[bytes | None]:
    # Successive rows of one trace or metric share the UUID object, which is then converted once.
    sent: list[bytes | None] = []
    last: UUID | None = None
    last_bytes: bytes | None = None
    for uuid in uuids:
        if uuid is not last:
            last, last_bytes = uuid, None if uuid is None else uuid.int.to_bytes(16, "big")
        sent.append(last_bytes)
    return sent


def _driver_of(connection: Connection) -> psycopg.Connection[Any]:
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver


@contextmanager
def _copying(
    connection: Connection,
    target: UpsertTarget,
    table: Table,
    sent: SentBytes | None,
    meanwhile: Callable[[], object] | None = None,
) -> Iterator[psycopg.Copy]:
    """A binary COPY of the target's columns into the table."""
    names = ", ".join(f'"{column}"' for column in target.columns)
    # SQLAlchemy doubles each % of a name. psycopg halves them only in a statement with parameters.
    into = qualified(connection, table).replace("%%", "%")
    statement = f"COPY {into} ({names}) FROM STDIN (FORMAT BINARY)"
    try:
        with _driver_of(connection).cursor() as cursor:
            buffer = _SendBuffer(cursor, sent or SentBytes(), meanwhile)
            with cursor.copy(statement.encode(), writer=buffer) as copy:
                yield copy
    except psycopg.errors.ReadOnlySqlTransaction as error:
        # SQLAlchemy does not see the errors of a COPY, so it would keep this connection.
        raise left_replica(connection, error) from error
    except Exception:
        raise
    except BaseException:  # such as KeyboardInterrupt: the COPY may still be running
        connection.invalidate()
        raise


def qualified(connection: Connection, table: Table) -> str:
    """The table's name with its schema, quoted, as the connection's engine translates it."""
    quote = connection.dialect.identifier_preparer.quote
    schema = table.schema
    if schema is None:
        translation = connection.get_execution_options().get("schema_translate_map") or {}
        schema = translation.get(None) or "public"
    return f"{quote(schema)}.{quote(table.name)}"
