"""The unit of work: one session and its transaction, with the repositories on it."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from sqlalchemy.orm import Session

from observatory_storage.errors import translate, translated
from observatory_storage.repositories import LogRepository, MetricRepository, TraceRepository
from observatory_storage.repositories.reading.streams import forget_streams

if TYPE_CHECKING:
    from observatory_storage.writers import Source

__all__ = ["UnitOfWork"]


class UnitOfWork:
    """One session, one transaction: rolled back at the end unless `commit` was called.

    The transaction begins with the first statement. After `commit` or `rollback` the next
    statement begins another one, which must be committed again. Errors of the database leave the
    block as `StorageError`, the driver's as its cause. Rows that were read or committed stay
    usable after the block.

    Attributes:
        session: the SQLAlchemy session; without autoflush, and nothing in it expires.
        traces, metrics, logs: the repositories.
        source: the pool that it came from.
    """

    def __init__(self, session: Session, source: Source) -> None:
        self.session = session
        self.source = source
        self.traces = TraceRepository(session)
        self.metrics = MetricRepository(session)
        self.logs = LogRepository(session)

    def commit(self) -> None:
        """Flush what was added to the session, and commit.

        Raises:
            StorageError: nothing was committed. After `ConnectionLost` that is not certain.
        """
        forget_streams(self.session)
        with translated():
            self.session.commit()

    def rollback(self) -> None:
        """Undo everything since the last commit; objects in the session are let go as they are."""
        forget_streams(self.session)
        with translated():
            # A rollback expires what the session holds: to keep it readable, let go of it first.
            self.session.expunge_all()
            self.session.rollback()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            forget_streams(self.session)
            with translated():
                self.session.close()
        finally:
            # The error of the block matters more than one of the rollback after it.
            known = translate(error) if error is not None else None
            if known is not None and known is not error:
                raise known from error
