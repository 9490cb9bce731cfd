"""Prepared rows into a table: by INSERT or COPY, straight in or merged with what is there.

All run on the caller's own connection, inside its transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Literal

import psycopg
from sqlalchemy import Connection, Table, insert

from observatory_storage import jsonb
from observatory_storage.errors import StorageError, translate
from observatory_storage.writers.ahead import sent
from observatory_storage.writers.copying import copy_encoded, copy_rows, qualified
from observatory_storage.writers.optimism import optimism
from observatory_storage.writers.tables import TableWriter, Values

__all__ = [
    "Method",
    "attempt",
    "chosen",
    "insert_rows",
    "is_text_error",
    "load",
    "repaired",
    "stage",
    "unstage",
    "write_rows",
]

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
    *,
    table: Table | None = None,
    encoded: Sequence[bytes] = (),
) -> None:
    """Put rows into the writer's table, or into the one given, by the method.

    Args:
        encoded: the rows as `encode` made them, where it did: they are copied then.
    """
    target = writer.target if table is None else table
    if encoded:
        copy_encoded(connection, writer, encoded, target)
    elif rows:
        move = copy_rows if chosen(method, len(rows)) == "copy" else insert_rows
        move(connection, writer, rows, target)


def stage(
    connection: Connection,
    writer: TableWriter,
    rows: Sequence[Values],
    method: Method,
    encoded: Sequence[bytes] = (),
) -> None:
    """Put rows into the writer's temporary table, which `unstage` or the commit drops."""
    like = qualified(connection, writer.table)
    connection.exec_driver_sql(
        f"CREATE TEMPORARY TABLE {qualified(connection, writer.stage)}"
        f" (LIKE {like} INCLUDING DEFAULTS) ON COMMIT DROP"
    )
    load(connection, writer, rows, method, table=writer.stage, encoded=encoded)


def unstage(connection: Connection, writer: TableWriter) -> None:
    """Drop the writer's temporary table."""
    connection.exec_driver_sql(f"DROP TABLE {qualified(connection, writer.stage)}")


def write_rows(
    connection: Connection,
    writer: TableWriter,
    rows: list[Values],
    method: Method,
    *,
    encoded: Sequence[bytes] = (),
    optimistic: bool = True,
) -> None:
    """Write rows of a table by themselves: straight in, and merged where that meets a conflict.

    Args:
        encoded: the rows, unique and in order, as `encode` made them, where it did.
    """
    if not rows:
        return
    if not encoded:
        rows = writer.unique(rows)
    if not optimistic or not attempt(
        connection, writer, lambda: load(connection, writer, rows, method, encoded=encoded)
    ):
        stage(connection, writer, rows, method, encoded)
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
