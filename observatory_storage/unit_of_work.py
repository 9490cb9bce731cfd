"""The unit of work: one session and its transaction, with the repositories on it."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from sqlalchemy.orm import Session

from observatory_storage.errors import translate, translated
from observatory_storage.repositories import LogRepository, MetricRepository, TraceRepository
from observatory_storage.repositories.reading.entities import UNIT_IS_OPEN
from observatory_storage.repositories.reading.reader import check_open
from observatory_storage.repositories.reading.streams import forget_streams

if TYPE_CHECKING:
    from observatory_storage.storing import Source

__all__ = ["UnitOfWork"]


class UnitOfWork:
    """One session and one transaction, which is rolled back at the end unless it is committed.

    Rows that the repositories return can be changed: set an attribute, then call `commit`.

    The transaction begins with the first statement. After `commit` or `rollback` the next
    statement begins another one, which must be committed again. Errors of the database leave the
    block as `StorageError`, with the driver's error as the cause. Rows that were read or committed
    stay usable after the block. The unit of work itself does not: each use then raises
    `StorageError`.

    Example:
        >>> with pool.unit_of_work() as uow:
        ...     page = uow.traces.list(service_name="chat", limit=20)

    Attributes:
        session: the SQLAlchemy session; without autoflush, and nothing in it expires.
        traces, metrics, logs: the repositories.
        source: the pool that it came from.
    """

    def __init__(self, session: Session, source: Source) -> None:
        self.session = session
        session.info[UNIT_IS_OPEN] = True
        self.source = source
        self.traces = TraceRepository(session)
        self.metrics = MetricRepository(session)
        self.logs = LogRepository(session)

    def commit(self) -> None:
        """Flush what was added to the session, and commit.

        Raises:
            StorageError: nothing was committed. After `ConnectionLost` that is not certain.
        """
        check_open(self.session)
        forget_streams(self.session)
        with translated():
            self.session.commit()

    def rollback(self) -> None:
        """Undo everything since the last commit; objects leave the session as they are."""
        check_open(self.session)
        forget_streams(self.session)
        with translated():
            # A rollback expires what the session holds. Without the session it stays readable.
            self.session.expunge_all()
            self.session.rollback()

    def __enter__(self) -> Self:
        check_open(self.session)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            forget_streams(self.session)
            self.session.info[UNIT_IS_OPEN] = False
            with translated():
                self.session.close()
        finally:
            # The error of the block matters more than one of the rollback after it.
            known = translate(error) if error is not None else None
            if known is not None and known is not error:
                raise known from error
