"""Two functions that move prepared rows into a table, and one that merges them with what is there.

All run on the caller's own connection, inside its transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal

import psycopg
from sqlalchemy import Connection, Table, insert

from observatory_storage import jsonb
from observatory_storage.errors import StorageError, translate
from observatory_storage.rows import PART
from observatory_storage.writers.ahead import Ahead, sent
from observatory_storage.writers.optimism import optimism
from observatory_storage.writers.tables import TableWriter, Values
from observatory_storage.writers.wire import wire_rows, wire_type

__all__ = ["Method", "copy_columns", "copy_rows", "insert_rows", "load", "write_rows"]

Method = Literal["auto", "insert", "copy"]
# From this many rows on COPY takes less time than INSERT; one row takes the same, see docs/copy.md.
_COPY_FROM_ROWS: Final = 2
_ONE_STATEMENT_ROWS: Final = 100
_TEXT_STATES: Final = frozenset({"22021", "22P05"})


def chosen(method: Method, rows: int) -> Literal["insert", "copy"]:
    """The method that "auto" takes for a batch of this many rows."""
    if method == "auto":
        return "copy" if rows >= _COPY_FROM_ROWS else "insert"
    return method


def copy_rows(
    connection: Connection, writer: TableWriter, rows: Sequence[Values], table: Table
) -> None:
    """Binary COPY of prepared rows into the table, on the connection's own driver connection."""
    parts = (rows[start : start + PART] for start in range(0, len(rows), PART))
    columns = (list(zip(*part, strict=True)) for part in parts)
    copy_columns(connection, writer, columns, table)


def copy_columns(
    connection: Connection,
    writer: TableWriter,
    parts: Iterable[Sequence[Sequence[Any]]],
    table: Table,
) -> None:
    """As `copy_rows`, of rows that come in parts, each as its columns."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)
    names = ", ".join(f'"{column}"' for column in writer.columns)
    statement = f"COPY {qualified(connection, table)} ({names}) FROM STDIN (FORMAT BINARY)"
    try:
        with (
            driver.cursor() as cursor,
            cursor.copy(statement.encode(), writer=Ahead(cursor)) as copy,
        ):
            # Without the types a Python int would go out as the smallest that holds it.
            copy.set_types(list(map(wire_type, writer.types)))
            write_row = copy.write_row
            for columns in parts:
                for row in wire_rows(writer.types, columns):
                    write_row(row)
    except psycopg.errors.ReadOnlySqlTransaction:
        # The engine, which replaces such connections, does not hear of a COPY.
        connection.invalidate()
        raise
    except Exception:
        raise
    except BaseException:  # a signal's: the COPY may be under way still
        connection.invalidate()
        raise


def insert_rows(
    connection: Connection, writer: TableWriter, rows: Sequence[Values], table: Table
) -> None:
    """Core `insert()` executemany of prepared rows into the table."""
    columns = writer.columns
    statement = insert(table)
    if len(rows) <= _ONE_STATEMENT_ROWS:
        # RETURNING makes SQLAlchemy send them as one statement. Without it psycopg would send each
        # by itself through a pipeline, and log a warning when a row's key is there already.
        statement = statement.returning(table.c[writer.key[0]])
    connection.execute(statement, [dict(zip(columns, row, strict=True)) for row in rows])
    sent.bytes += sum(len(v) for row in rows for v in row if isinstance(v, (str, bytes)))


def load(
    connection: Connection,
    writer: TableWriter,
    rows: Sequence[Values],
    method: Method,
    table: Table | None = None,
) -> None:
    """Put rows into the writer's table, or into the one given, by the method."""
    if not rows:
        return
    move = copy_rows if chosen(method, len(rows)) == "copy" else insert_rows
    move(connection, writer, rows, writer.target if table is None else table)


def stage(
    connection: Connection, writer: TableWriter, rows: Sequence[Values], method: Method
) -> None:
    """Put rows into the writer's temporary table, which `unstage` or the commit drops."""
    like = qualified(connection, writer.table)
    connection.exec_driver_sql(
        f"CREATE TEMPORARY TABLE {qualified(connection, writer.stage)}"
        f" (LIKE {like} INCLUDING DEFAULTS) ON COMMIT DROP"
    )
    load(connection, writer, rows, method, writer.stage)


def unstage(connection: Connection, writer: TableWriter) -> None:
    connection.exec_driver_sql(f"DROP TABLE {qualified(connection, writer.stage)}")


def write_rows(
    connection: Connection,
    writer: TableWriter,
    rows: list[Values],
    method: Method,
    *,
    optimistic: bool = True,
) -> None:
    """Write rows of a table by themselves: straight in, and merged where that meets a conflict."""
    if not rows:
        return
    rows = writer.unique(rows)
    if not optimistic or not attempt(
        connection, writer, lambda: load(connection, writer, rows, method)
    ):
        stage(connection, writer, rows, method)
        connection.execute(writer.merge)
        unstage(connection, writer)


def attempt(connection: Connection, writer: TableWriter, straight_in: Callable[[], object]) -> bool:
    """Go the optimistic way in a savepoint; False when that failed and another may succeed.

    False at once while it does not pay, see `optimism`.

    No rule depends on which error it was (distributions of PostgreSQL report a duplicate in their
    own ways), only on whether the connection lives and the trouble is not a passing one.
    """
    hope = optimism(connection, writer.stage.name)
    if not hope.allows():
        return False
    try:
        with connection.begin_nested():
            straight_in()
    except Exception as error:  # what is no error of the database, as of a row, goes on up
        known = None if isinstance(error, StorageError) else translate(error)
        if known is None or known.retryable or connection.closed or is_text_error(error):
            raise
        hope.learn(clean=False)
        return False
    hope.learn(clean=True)
    return True


def is_text_error(error: BaseException) -> bool:
    """Whether the error is about text that PostgreSQL cannot hold: NUL, or a lone surrogate."""
    original = getattr(error, "orig", None) or error
    if isinstance(original, UnicodeEncodeError):
        return True
    # psycopg refuses NUL by itself, with no SQLSTATE, where a value goes as text.
    return isinstance(original, psycopg.DataError) and (
        original.sqlstate is None or original.sqlstate in _TEXT_STATES
    )


def repaired(values: Values) -> Values:
    """The values with their text as PostgreSQL can hold it; JSON was repaired when encoded."""
    return tuple(jsonb.clean_text(v) if isinstance(v, str) else v for v in values)


def qualified(connection: Connection, table: Table) -> str:
    """The table's name with its schema, quoted, as the connection's engine translates it."""
    quote = connection.dialect.identifier_preparer.quote
    schema = table.schema
    if schema is None:
        translation = connection.get_execution_options().get("schema_translate_map") or {}
        schema = translation.get(None) or "public"
    return f"{quote(schema)}.{quote(table.name)}"
