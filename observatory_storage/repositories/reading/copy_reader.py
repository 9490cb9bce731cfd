"""Reads rows by COPY, for Arrow, which takes a fraction of the time of making entities.

COPY has no result of rows, and takes no bind parameters. Therefore SQLAlchemy executes the SELECT
as it would any other, up to the call of the driver, which sends it within a COPY. So the statement
is compiled once, has the schema and the cursor's adapters, is seen by listeners, and errors become
what they are elsewhere.
"""

from __future__ import annotations

from threading import Lock
from typing import Any, Final, TypeVar, cast
from weakref import WeakSet

import psycopg
import sqlalchemy as sa
from psycopg.abc import PQGen
from psycopg.generators import fetch_many
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn
from psycopg.waiting import Wait
from sqlalchemy import Select
from sqlalchemy.engine.interfaces import ExecutionContext
from sqlalchemy.orm import Session

from observatory_storage.arrow import Shape, copied_columns
from observatory_storage.errors import translated
from observatory_storage.repositories.reading.entities import mapper_of
from observatory_storage.repositories.reading.reader import Parameters, Reader

__all__ = ["CopyReader"]

T = TypeVar("T")

# The execution option with the list that takes the result of a COPY: the lines.
_RESULTS: Final = "observatory_storage.copied"
# The dialects that listen, of the engines of sessions.
_listening: Final[WeakSet[sa.Dialect]] = WeakSet()
_listening_lock: Final = Lock()


class CopyReader(Reader):
    """Reads the rows of one table as lines of CSV, and all others as `Reader` does.

    Args:
        session: as for `Reader`.
        shape: the columns that are read.
    """

    def __init__(self, session: Session, shape: Shape) -> None:
        super().__init__(session)
        self._shape = shape

    def entities(self, statement: Select[T], parameters: Parameters = None) -> list[T]:
        """The lines of the rows that the statement selects. None of the COPY is left to be read."""
        mapper = mapper_of(statement)
        if mapper is None or mapper.class_ is not self._shape.kind:
            return super().entities(statement, parameters)
        entity = statement.column_descriptions[0]["entity"]
        columns = copied_columns(self._shape, entity)
        results: list[list[bytes]] = []
        with translated():
            bind = {"mapper": mapper, "clause": statement}
            _listen(self.session.connection(bind).engine)
            copied = statement.with_only_columns(*columns, maintain_column_froms=True)
            self._execute(mapper, copied, parameters, {_RESULTS: results}).close()
        (lines,) = results
        return cast(list[T], lines)


def _listen(engine: sa.Engine) -> None:
    # Also an engine that this package has not made may have the session. Whatever else it executes
    # does not have the option.
    with _listening_lock:
        if engine.dialect not in _listening:
            sa.event.listen(engine, "do_execute", _copy)
            _listening.add(engine.dialect)


def _copy(
    cursor: psycopg.Cursor[Any], statement: str, parameters: Any, context: ExecutionContext
) -> bool | None:
    """Send the statement within a COPY, if it has the option. True if it has been executed."""
    results = context.execution_options.get(_RESULTS)
    if results is None:
        return None
    # Only if there are parameters, psycopg replaces %% by %. A page has at least its row limit.
    assert parameters
    copy = f"COPY ({statement}) TO STDOUT (FORMAT csv, ENCODING 'UTF8')"
    with cursor.copy(copy, parameters):
        results.append(cursor.connection.wait(_received(cursor.connection.pgconn)))
    return True


def _received(connection: PGconn) -> PQGen[list[bytes]]:
    """The messages of a COPY, of which each has a row.

    `Copy.read` waits for each message by itself, which takes four times as long.
    """
    lines: list[bytes] = []
    while True:
        size, line = connection.get_copy_data(1)
        if size > 0:
            # The garbage collector follows each memoryview, so a page of them makes it run often,
            # over all objects of the application: it took twice as long as everything else.
            lines.append(bytes(line))
        elif size == 0:
            while not (yield Wait.R):
                pass
            connection.consume_input()
        else:
            break
    for result in (yield from fetch_many(connection)):
        if result.status != ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(result)
    return lines
