"""What a pool does to read: units of work, positions of commits, health."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.orm import Session

from observatory_storage.bounded_pool import acquire_within
from observatory_storage.cache import Cache
from observatory_storage.commits import Commits, FollowedSession, follow_session
from observatory_storage.config import StorageConfig
from observatory_storage.engine import single_attempt
from observatory_storage.errors import StorageError, ValidationError, translated
from observatory_storage.health import HealthReport, PoolStats, check_health, pool_stats
from observatory_storage.layout import Partitions
from observatory_storage.operations import Hooks
from observatory_storage.pricing import PriceBook
from observatory_storage.read_only_guard import (
    READ_ONLY,
    ReadOnlyGuard,
    refuse_writing,
)
from observatory_storage.replication_lag import LagMeter
from observatory_storage.rows import Rules
from observatory_storage.timed_calls import answers_within
from observatory_storage.wal_positions import checked_lsn, current_lsn, wait_for
from observatory_storage.writers import FlushResult

if TYPE_CHECKING:
    from redis import Redis

    from observatory_storage.unit_of_work import UnitOfWork

__all__ = ["PoolReads"]

_log: Final = logging.getLogger(__name__)
_AFTER_TIMEOUT_SECS: Final = 5.0


class PoolReads:
    """The methods of a `StoragePool` that read, and that tell how its servers are."""

    config: StorageConfig
    engine: sa.Engine
    read_engine: sa.Engine
    has_read_server: bool
    redis: Redis | None
    schema: str
    partitions: Partitions
    rules: Rules | None
    prices: PriceBook
    hooks: Hooks
    commits: Commits
    cache: Cache
    lag_meter: LagMeter
    _owned: bool
    _closed: bool

    if TYPE_CHECKING:

        def _require_open(self) -> None: ...

    def unit_of_work(
        self,
        *,
        read_only: bool = False,
        after: FlushResult | str | None = None,
        after_timeout_secs: float = _AFTER_TIMEOUT_SECS,
    ) -> UnitOfWork:
        """Create a unit of work: one transaction, with the repositories that read in it.

        It takes a connection from the pool with its first statement and returns it at the end.

        A read-only unit of work reads from the server of ``DATABASE_READ_URL``, which may be a
        standby and so be behind; without that setting, from the same server as all others. Its
        transactions are read only on any server. The cache in Redis is not used for a read server,
        so that all of its answers are those of one server.

        Example::

            result = writer.flush()
            with pool.unit_of_work(read_only=True, after=result) as uow:
                uow.traces.get(trace_id)

        Args:
            read_only: whether it only reads.
            after: what the read server must have replayed before a transaction of this unit of work
                reads: the result of a flush, or a position that `current_lsn` has returned. If the
                result has no position, that of the primary now is taken.
            after_timeout_secs: how long the first statement of a transaction waits for that. If it
                is not enough, the statement raises a retryable `Timeout`, and nothing was read.

        Raises:
            PoolError: the pool is closed.
            ValidationError: ``after`` is given and ``read_only`` is not, or an argument is invalid.
            StorageError: the primary could not be asked for its position.
        """
        # A third of the package reads: a process that only writes starts without it.
        from observatory_storage.repositories.reading.cached_results import CACHE
        from observatory_storage.unit_of_work import UnitOfWork

        self._require_open()
        if not read_only:
            if after is not None:
                raise ValidationError("after", after, "needs read_only=True")
            session = FollowedSession(
                self.engine, autoflush=False, expire_on_commit=False, close_resets_only=False
            )
            follow_session(self.commits, session)
            session.info[CACHE] = self.cache.reads
            return UnitOfWork(session, self)
        lsn = self._position(after)
        wait_secs = _seconds("after_timeout_secs", after_timeout_secs)
        reading = _ReadOnlySession(
            self.read_engine, autoflush=False, expire_on_commit=False, close_resets_only=False
        )
        reading.info[READ_ONLY] = ReadOnlyGuard(has_server=self.has_read_server)
        if not self.has_read_server:
            reading.info[CACHE] = self.cache.reads
        if lsn is not None:
            _wait_in_each_transaction(reading, lsn, wait_secs)
        return UnitOfWork(reading, self)

    def current_lsn(self) -> str | None:
        """Ask the primary for the position behind everything that has been committed until now.

        Pass it to `unit_of_work` as ``after``, also in another process. A `FlushResult` has the
        position of its rows if there is a read server.

        Returns:
            A position in the write-ahead log, such as ``"0/16B3748"``.

        Raises:
            StorageError: the primary could not be asked.
        """
        with translated(), self.engine.connect() as connection:
            return current_lsn(connection)

    def lsn_after_flush(self, timeout: float | None = None) -> str | None:
        """The position of what has been flushed, if somebody may read it from a read server.

        Not for applications to call. It takes one statement on the primary, without retries. If
        that fails, rows are committed nevertheless, so it does not raise.

        Args:
            timeout: the seconds that it may take; None for as long as the pool and the server take.
        """
        if self._closed or not self.has_read_server:
            return None
        if timeout is None:
            return self._lsn_if_told()
        if timeout <= 0:
            return None
        try:
            return answers_within({"lsn": lambda: self._lsn_if_told(timeout)}, timeout).get("lsn")
        except RuntimeError:  # no thread can be started while the interpreter ends
            return None

    def _lsn_if_told(self, patience: float | None = None) -> str | None:
        try:
            with single_attempt(), acquire_within(patience):
                return self.current_lsn()
        except StorageError as error:
            # A server without positions refuses each time; whoever asks for one is told.
            level = logging.WARNING if error.retryable else logging.DEBUG
            _log.log(level, "the position of what was flushed is not known: %s", error)
            return None

    def health_check(self, timeout: float | None = None) -> HealthReport:
        """Ask PostgreSQL, the read server and Redis how they are, once each. Never raises.

        Args:
            timeout: a server that has not answered after this many seconds counts as failed, also
                if all connections are in use. None waits as long as the pool's
                ``acquire_timeout_secs`` and the connection's timeouts allow.
        """
        read_engine = self.read_engine if self.has_read_server else None
        return check_health(self.engine, self.redis, timeout, read_engine, self.lag_meter)

    def stats(self) -> PoolStats:
        """Count the connections of this process: open, idle, and in use."""
        minimum = self.config.pool.min_connections if self._owned else 0
        read = pool_stats(self.read_engine, minimum) if self.has_read_server else None
        return pool_stats(self.engine, minimum, read)

    def _position(self, after: FlushResult | str | None) -> str | None:
        if isinstance(after, FlushResult):
            return after.lsn or self.current_lsn()
        return None if after is None else checked_lsn("after", after)


class _ReadOnlySession(Session):
    """The session of a read-only unit of work: nothing is flushed."""

    def flush(self, objects: Sequence[Any] | None = None) -> None:
        changed = [
            *self.new,
            *self.deleted,
            *(each for each in self.dirty if self.is_modified(each)),
        ]
        if changed:
            names = ", ".join(sorted({type(each).__name__ for each in changed}))
            refuse_writing(self, f"flush of {names}")
        super().flush(objects)


def _wait_in_each_transaction(session: Session, lsn: str, timeout_secs: float) -> None:
    """Have each transaction of the session wait, on its own connection, until the server is there.

    Another connection may lead to another standby.
    """

    @event.listens_for(session, "after_begin")
    def wait(_: Session, __: object, connection: sa.Connection) -> None:
        try:
            wait_for(connection, lsn, timeout_secs)
        except BaseException:
            # The session would go on with this connection, and read what is behind. The next
            # transaction connects anew, where several standbys are named perhaps to another one.
            connection.invalidate()
            raise


def _seconds(field: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise ValidationError(field, value, "must be a number of seconds")
    return float(value)
