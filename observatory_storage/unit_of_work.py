"""The unit of work: one session with its transaction and the repositories."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from sqlalchemy.orm import Session

from observatory_storage.errors import translate, translated
from observatory_storage.repositories import LogRepository, MetricRepository, TraceRepository
from observatory_storage.repositories.reading.entities import UNIT_IS_OPEN
from observatory_storage.repositories.reading.reader import HOOKS, check_open
from observatory_storage.repositories.reading.streams import forget_streams

if TYPE_CHECKING:
    from observatory_storage.storing import Source

__all__ = ["UnitOfWork"]


class UnitOfWork:
    """One session with one transaction, which is rolled back at the end unless you commit it.

    Rows that the repositories return can be changed: set an attribute, or change a JSON value in
    place, then call `commit`.

    The transaction begins with the first statement. After `commit` or `rollback`, the next
    statement begins a new transaction, which must be committed as well. Database errors are raised
    as `StorageError`, with the driver's error as the cause. Rows that were read or committed stay
    usable after the block. The unit of work itself cannot be used after the block: every use raises
    `StorageError`.

    In a read-only unit of work (see `StoragePool.unit_of_work`) everything that writes raises
    `ReadOnly`, and changed rows cannot be committed.

    Example:
        >>> with pool.unit_of_work() as uow:
        ...     page = uow.traces.list(service_name="chat", limit=20)

    Attributes:
        traces, metrics, logs: the repositories.
        source: the pool that created it.
    """

    def __init__(self, session: Session, source: Source) -> None:
        self._session = session
        session.info[UNIT_IS_OPEN] = True
        session.info[HOOKS] = source.hooks
        self.source = source
        self.traces = TraceRepository(session)
        self.metrics = MetricRepository(session)
        self.logs = LogRepository(session)

    @property
    def session(self) -> Session:
        """The SQLAlchemy session. It does not autoflush, and objects do not expire on commit.

        Raises:
            StorageError: the unit of work has ended.
        """
        check_open(self._session)
        return self._session

    def commit(self) -> None:
        """Flush the changes in the session, and commit the transaction.

        Raises:
            StorageError: nothing was committed. After `ConnectionLost` the commit may have
                succeeded or not.
        """
        forget_streams(self.session)
        with translated():
            self.session.commit()

    def rollback(self) -> None:
        """Roll back all changes since the last commit. Objects keep their values."""
        forget_streams(self.session)
        with translated():
            # A rollback expires what the session holds. Without the session it stays readable.
            self.session.expunge_all()
            self.session.rollback()

    def __enter__(self) -> Self:
        check_open(self._session)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            forget_streams(self._session)
            self._session.info[UNIT_IS_OPEN] = False
            with translated():
                self._session.close()
        finally:
            # The error of the block matters more than one of the rollback after it.
            known = translate(error) if error is not None else None
            if known is not None and known is not error:
                raise known from error
