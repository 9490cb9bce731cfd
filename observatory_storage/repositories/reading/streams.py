"""Results that are read batch by batch, while other statements run on their connection.

Unfinished streams are closed when their transaction ends, or before another stream begins. They are
never closed by the garbage collector, which may run while the connection waits for an answer or
serves another transaction.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from sqlalchemy import CursorResult, text
from sqlalchemy.orm import Session

from observatory_storage.errors import StorageError

__all__ = ["batches", "forget_streams"]

_OPEN: Final = "observatory_storage streams"
_CURSORS: Final = text("SELECT name FROM pg_cursors")


@dataclass
class _Stream:
    result: CursorResult[Any]
    is_read: bool = True

    def forget(self) -> None:
        """Mark the stream as closed in the driver, without sending anything."""
        cursor: object = self.result.cursor
        if isinstance(cursor, psycopg.ServerCursor):
            psycopg.Cursor.close(cursor)


def batches(session: Session, result: CursorResult[Any]) -> Iterator[Sequence[Any]]:
    """The rows of a result with ``yield_per``, a batch at a time.

    Raises:
        StorageError: the transaction has ended.
    """
    transaction = session.get_transaction()
    stream = _Stream(result)
    streams: list[_Stream] = session.info.setdefault(_OPEN, [])
    _close_abandoned(session, streams)
    streams.append(stream)
    partitions = result.partitions()
    try:
        while True:
            if session.get_transaction() is not transaction:
                raise StorageError(
                    "the transaction in which these rows are read has ended: read them to the end"
                    " within the unit of work, before it commits or rolls back"
                )
            rows = next(partitions, None)
            if rows is None:  # at the end it is closed
                streams.remove(stream)
                return
            yield rows
    finally:
        stream.is_read = False


def forget_streams(session: Session) -> None:
    """Forget open streams, which the server closes with the transaction."""
    for one in session.info.pop(_OPEN, ()):
        one.forget()


def _close_abandoned(session: Session, streams: list[_Stream]) -> None:
    abandoned = [one for one in streams if not one.is_read]
    if not abandoned:
        return
    # A stream may have been closed by a savepoint or with an earlier transaction. Closing it once
    # more would fail this transaction.
    there = set(session.scalars(_CURSORS))
    for one in abandoned:
        streams.remove(one)
        cursor: object = one.result.cursor
        if isinstance(cursor, psycopg.ServerCursor) and cursor.name in there:
            one.result.close()
        else:
            one.forget()
