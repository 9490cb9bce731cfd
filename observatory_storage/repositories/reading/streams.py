"""Results that are read batch by batch, while other statements run on their connection.

Whoever lets go of one half read must not close it: garbage collection does so at any time, while
the connection waits for an answer or when it serves another transaction by then. The server closes
it at the end of the transaction; or it is closed before another stream begins.
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
        """Have the driver hold it for closed, and send nothing."""
        cursor: object = self.result.cursor
        if isinstance(cursor, psycopg.ServerCursor):
            psycopg.Cursor.close(cursor)


def batches(session: Session, result: CursorResult[Any]) -> Iterator[Sequence[Any]]:
    """The rows of a result with ``yield_per``, a batch at a time.

    Raises:
        StorageError: the transaction ended meanwhile.
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
    """Let go of what is still open: the server closes it with the transaction."""
    for one in session.info.pop(_OPEN, ()):
        one.forget()


def _close_abandoned(session: Session, streams: list[_Stream]) -> None:
    abandoned = [one for one in streams if not one.is_read]
    if not abandoned:
        return
    # Closed already by a savepoint, or with an earlier transaction: to close it fails this one.
    there = set(session.scalars(_CURSORS))
    for one in abandoned:
        streams.remove(one)
        cursor: object = one.result.cursor
        if isinstance(cursor, psycopg.ServerCursor) and cursor.name in there:
            one.result.close()
        else:
            one.forget()
