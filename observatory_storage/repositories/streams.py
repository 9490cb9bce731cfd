"""Results that are read batch by batch, while other statements run on their connection.

Whoever lets go of one half read must not close it: garbage collection does so at any time, while
the connection waits for an answer or when it serves somebody else by then. It is closed with the
next stream, or before the unit of work gives its connection back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Result
from sqlalchemy.orm import Session

from observatory_storage.errors import StorageError

__all__ = ["batches", "close_streams"]

_OPEN: Final = "observatory_storage streams"


@dataclass
class _Stream:
    result: Result[Any]
    is_read: bool = True

    def close(self) -> None:
        # In a failed transaction, or without its connection, it is gone already.
        with contextlib.suppress(Exception):
            self.result.close()


def batches(session: Session, result: Result[Any]) -> Iterator[Sequence[Any]]:
    """The rows of a result with ``yield_per``, a batch at a time.

    Raises:
        StorageError: the transaction ended meanwhile.
    """
    streams: list[_Stream] = session.info.setdefault(_OPEN, [])
    for one in [one for one in streams if not one.is_read]:
        streams.remove(one)
        one.close()
    stream = _Stream(result)
    streams.append(stream)
    transaction = session.get_transaction()
    partitions = result.partitions()
    try:
        while True:
            if session.get_transaction() is not transaction:
                raise StorageError(
                    "the transaction in which these rows are read has ended: read them to the end"
                    " within the unit of work, before it commits or rolls back"
                )
            rows = next(partitions, None)
            if rows is None:
                return
            yield rows
    finally:
        stream.is_read = False


def close_streams(session: Session) -> None:
    """Close what is still open of the session's streams; its connection must be its own yet."""
    for one in session.info.pop(_OPEN, ()):
        one.close()
