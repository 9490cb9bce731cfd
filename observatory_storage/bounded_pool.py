"""The engine's connection pool: it has a hard limit, checks connections and replaces old ones.

It has no background thread. Connections are checked when they are checked out and returned.
"""

from __future__ import annotations

import os
import random
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, cast

import psycopg
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection, QueuePool

from observatory_storage.config import PoolConfig
from observatory_storage.errors import PoolError
from observatory_storage.processes import process_lock

__all__ = ["BoundedPool", "acquire_within", "recycle_connections"]

# A connection that was idle for longer is checked by a query. Before that, checking its socket is
# enough: a server that stopped, or ended the session, has sent something.
_TRUSTED_SECONDS: Final = 5.0
# Connections that were opened together should not all expire together.
_LIFETIME_SPREAD: Final = 0.1


_patience: Final[ContextVar[float | None]] = ContextVar("_patience", default=None)


@contextmanager
def acquire_within(timeout: float | None) -> Iterator[None]:
    """In the block a connection of a `BoundedPool` is waited for that many seconds at most."""
    token = _patience.set(timeout)
    try:
        yield
    finally:
        _patience.reset(token)


class BoundedPool(QueuePool):
    """A QueuePool that closes connections nobody needs, down to a minimum, and can be closed.

    A forked child begins with an empty pool, whether or not Python saw the fork: the connections
    that were open are the parent's, and the child neither uses nor closes them.
    """

    def set_limits(self, config: PoolConfig) -> None:
        """Set the limits that QueuePool has no arguments for. Call this once, before use."""
        self._config = config
        self._closed = False
        self._pid = os.getpid()
        self._of_parents: list[object] = []

    def begin_in_child(self) -> None:
        """Leave the connections to the process that opened them, where that is another one."""
        if self._pid == os.getpid():
            return
        with process_lock():
            if self._pid != os.getpid():
                # Referenced, since the garbage collector would close them. The locks are replaced
                # too: a thread that this process does not have may hold them.
                self._of_parents.append(self._pool)
                fresh = super().recreate()
                self._pool = fresh._pool
                self._overflow = fresh._overflow
                self._overflow_lock = fresh._overflow_lock
                self._pid = os.getpid()

    @property
    def open_idle(self) -> int:
        """How many connections are open and not in use."""
        self.begin_in_child()
        with self._pool.mutex:  # type: ignore[attr-defined]  # not in the type it declares
            return sum(record.dbapi_connection is not None for record in self._records)

    @property
    def _records(self) -> Any:
        # SQLAlchemy's queue contains a deque of records. The last ones are checked out first.
        return self._pool.queue  # type: ignore[attr-defined]  # as above

    @property
    def _timeout(self) -> float:
        patience = _patience.get()
        return self._patience_of_all if patience is None else min(patience, self._patience_of_all)

    @_timeout.setter
    def _timeout(self, seconds: float) -> None:
        self._patience_of_all = seconds

    def connect(self) -> PoolProxiedConnection:
        """Check out a connection. When all are in use, wait up to the timeout.

        Raises:
            PoolError: no connection became free in time, or the pool is closed.
        """
        if self._closed:
            raise PoolError("the pool is closed", retryable=False)
        self.begin_in_child()
        try:
            return super().connect()
        except PoolTimeout as error:
            waited = f"{self._timeout:g} s"
            if _patience.get() is None:
                waited += " (acquire_timeout_secs)"
            raise PoolError(
                f"no connection became free in {waited}:"
                f" all {self.size()} (max_connections) are in use"
            ) from error

    def recreate(self) -> BoundedPool:
        """A new pool with the same options and no connections."""
        fresh = cast(BoundedPool, super().recreate())
        fresh.set_limits(self._config)
        return fresh

    def dispose(self) -> None:
        """Close the idle connections of this process."""
        self.begin_in_child()
        super().dispose()

    def checkedout(self) -> int:
        """How many connections are in use by this process."""
        self.begin_in_child()
        return super().checkedout()

    def close(self) -> None:
        """Close idle connections now, and the others when they are returned. Refuse check-outs."""
        self._closed = True
        self.dispose()

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        if record.info.get("pid", os.getpid()) != os.getpid():
            self._of_parents.append(record)  # was in use when its process forked
            return
        super()._do_return_conn(record)
        if self._closed:
            self.dispose()
        else:
            self._close_superfluous()

    def _close_superfluous(self) -> None:
        """Close connections above the minimum that were idle for too long.

        This runs whenever a connection is returned, so it needs no thread. A pool that is not used
        keeps its connections.
        """
        superfluous: list[ConnectionPoolEntry] = []
        before = time.monotonic() - self._config.idle_timeout_secs
        with self._pool.mutex:  # type: ignore[attr-defined]  # as above
            records = self._records
            spare = self.checkedin() + self.checkedout() - self._config.min_connections
            while len(superfluous) < spare and records and _idle_since(records[0]) < before:
                superfluous.append(records.popleft())
        for record in superfluous:
            self._dec_overflow()
            record.close()


def _idle_since(record: ConnectionPoolEntry) -> float:
    return float(record.info["idle_since"])


def recycle_connections(engine: sa.Engine, config: PoolConfig) -> None:
    """Replace connections that are too old, were idle for too long, or are dead."""

    @event.listens_for(engine, "connect")
    def opened(_: object, record: ConnectionPoolEntry) -> None:
        now = time.monotonic()
        early = random.uniform(0, _LIFETIME_SPREAD)  # noqa: S311 - no secret
        lifetime = config.max_lifetime_secs * (1 - early)
        record.info.update(idle_since=now, expires=now + lifetime, fresh=True, pid=os.getpid())

    @event.listens_for(engine, "checkin")
    def returned(_: object, record: ConnectionPoolEntry) -> None:
        record.info["idle_since"] = time.monotonic()
        record.info["was_returned"] = True

    @event.listens_for(engine, "checkout")
    def taken(connection: psycopg.Connection[Any], record: ConnectionPoolEntry, _: object) -> None:
        # SQLAlchemy handles DisconnectionError by replacing the connection with a new one.
        if record.info.pop("fresh", False):
            return
        now = time.monotonic()
        idle = now - _idle_since(record)
        if now > record.info["expires"]:
            raise DisconnectionError("older than max_lifetime_secs")
        if idle > config.idle_timeout_secs:
            raise DisconnectionError("idle for longer than idle_timeout_secs")
        if (idle > _TRUSTED_SECONDS or _has_news(connection)) and not _answers(engine, connection):
            raise DisconnectionError("no longer connected")


def _has_news(connection: psycopg.Connection[Any]) -> bool:
    """Whether an idle connection has data to read, or was closed."""
    if connection.closed or not hasattr(select, "poll"):  # Windows has no poll: check by a query
        return True
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _answers(engine: sa.Engine, connection: psycopg.Connection[Any]) -> bool:
    try:
        return engine.dialect.do_ping(connection)  # type: ignore[arg-type]  # psycopg's is one
    except psycopg.Error:
        return False
