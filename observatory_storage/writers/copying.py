"""COPY of prepared rows into a table, on the connection's own driver connection."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.copy import Writer
from sqlalchemy import Connection, Table

from observatory_storage.rows import PART
from observatory_storage.writers.ahead import Ahead
from observatory_storage.writers.tables import TableWriter, Values
from observatory_storage.writers.wire import wire_rows, wire_type

__all__ = ["copy_columns", "copy_encoded", "copy_rows", "encode", "qualified"]


def copy_rows(
    connection: Connection, writer: TableWriter, rows: Sequence[Values], table: Table
) -> None:
    """Binary COPY of prepared rows into the table, on the connection's own driver connection."""
    copy_columns(connection, writer, _columns_of(rows), table)


def copy_columns(
    connection: Connection,
    writer: TableWriter,
    parts: Iterable[Sequence[Sequence[Any]]],
    table: Table,
) -> None:
    """As `copy_rows`, of rows that come in parts, each as its columns."""
    with _copying(connection, writer, table) as copy:
        _write_parts(copy, writer, parts)


def encode(connection: Connection, writer: TableWriter, rows: Sequence[Values]) -> list[bytes]:
    """What a COPY of these rows is going to send, made while the connection is busy."""
    blocks = _Blocks()
    with psycopg.Copy(_driver_of(connection).cursor(), binary=True, writer=blocks) as copy:
        _write_parts(copy, writer, _columns_of(rows))
    return blocks.written


def copy_encoded(
    connection: Connection, writer: TableWriter, encoded: Sequence[bytes], table: Table
) -> None:
    """Binary COPY of what `encode` made."""
    with _copying(connection, writer, table) as copy:
        for block in encoded:
            copy.write(block)


class _Blocks(Writer):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))


def _columns_of(rows: Sequence[Values]) -> Iterator[Sequence[Sequence[Any]]]:
    for start in range(0, len(rows), PART):
        yield list(zip(*rows[start : start + PART], strict=True))


def _write_parts(
    copy: psycopg.Copy, writer: TableWriter, parts: Iterable[Sequence[Sequence[Any]]]
) -> None:
    # Without the types a Python int would go out as the smallest that holds it.
    copy.set_types(list(map(wire_type, writer.types)))
    write_row = copy.write_row
    for columns in parts:
        for row in wire_rows(writer.types, columns):
            write_row(row)


def _driver_of(connection: Connection) -> psycopg.Connection[Any]:
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    return driver


@contextmanager
def _copying(connection: Connection, writer: TableWriter, table: Table) -> Iterator[psycopg.Copy]:
    """A binary COPY of the writer's columns into the table."""
    names = ", ".join(f'"{column}"' for column in writer.columns)
    statement = f"COPY {qualified(connection, table)} ({names}) FROM STDIN (FORMAT BINARY)"
    try:
        with (
            _driver_of(connection).cursor() as cursor,
            cursor.copy(statement.encode(), writer=Ahead(cursor)) as copy,
        ):
            yield copy
    except psycopg.errors.ReadOnlySqlTransaction:
        # The engine, which replaces such connections, does not hear of a COPY.
        connection.invalidate()
        raise
    except Exception:
        raise
    except BaseException:  # a signal's: the COPY may be under way still
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
