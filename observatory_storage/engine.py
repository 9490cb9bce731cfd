"""The SQLAlchemy engine: how connections to PostgreSQL are opened and configured.

It works through pgbouncer in transaction mode. It sends no startup ``options``, prepares no
statements, and sets nothing on a session that a transaction depends on.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, cast

import psycopg
import sqlalchemy as sa
import tenacity
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, Pool, PoolProxiedConnection

from observatory_storage.adaptation import ADAPTERS, differences
from observatory_storage.backoff import backoff
from observatory_storage.bounded_pool import BoundedPool, recycle_connections
from observatory_storage.config import PostgresConfig, StorageConfig
from observatory_storage.distribution import (
    TRANSACTION_SETTINGS,
    check_connections,
    compile_for,
    layout_options,
)
from observatory_storage.errors import ConfigError, translated
from observatory_storage.lazy_cursor import LazyCursor
from observatory_storage.operations import Hooks
from observatory_storage.read_only_engine import explain_replay_conflicts, leave_replicas

__all__ = [
    "adopt_engine",
    "check_engine",
    "create_engine",
    "measure_acquisition",
    "single_attempt",
]

logger = logging.getLogger(__name__)

# Where a connection keeps what is registered on its cursors.
_ADAPTATIONS: Final = "observatory_storage.adaptations"
_watched: Final[weakref.WeakSet[Pool]] = weakref.WeakSet()

_no_retry: ContextVar[bool] = ContextVar("_no_retry", default=False)


def create_engine(config: StorageConfig) -> sa.Engine:
    """Create an engine that connects at first use.

    Tables without a schema are in the configured schema. A connection that cannot be opened is
    retried as configured by ``config.retry``.
    """
    pool = config.pool
    engine = sa.create_engine(
        config.postgres.url(),
        poolclass=BoundedPool,
        pool_size=pool.max_connections,
        max_overflow=0,
        pool_timeout=pool.acquire_timeout_secs,
        # The connection used last is checked out first, so that superfluous ones become idle.
        pool_use_lifo=True,
        connect_args={
            **config.postgres.connect_args(),
            "connect_timeout": pool.connect_timeout_secs,
            # No prepared statements. The generic plan of a prepared statement does not know the
            # values, and can be ten times slower here. And pgbouncer may run the next transaction
            # on a connection that has not prepared the statement.
            "prepare_threshold": None,
            "context": ADAPTERS,
            "cursor_factory": LazyCursor,
            # Whatever the role, the database or PGCLIENTENCODING says: COPY sends UTF-8.
            "client_encoding": "UTF8",
        },
        # Set explicitly, since the writers' handling of conflicts depends on it.
        isolation_level="READ COMMITTED",
        # Rows contain what users wrote, which must not appear in errors and logs.
        hide_parameters=True,
        use_native_hstore=False,
        execution_options={
            "schema_translate_map": {None: config.postgres.schema_name},
            **layout_options(config.postgres),
        },
    )
    compile_for(engine.dialect, config.postgres)
    cast(BoundedPool, engine.pool).set_limits(pool)
    _connect_with_retry(engine, config)
    _prepare_connections(engine)
    recycle_connections(engine, pool)
    leave_replicas(engine)
    explain_replay_conflicts(engine)
    _set_up_transactions(engine, config.postgres)
    check_connections(engine, config.postgres)
    return engine


def adopt_engine(engine: sa.Engine, config: StorageConfig) -> sa.Engine:
    """An engine for this package that shares the connections of the application's engine.

    All other settings apply to cursors and transactions of the returned engine only, so the
    application's use of its own engine does not change.
    """
    schemas = dict(engine.get_execution_options().get("schema_translate_map") or {})
    schemas[None] = config.postgres.schema_name
    # The application may stream all its results; these statements say themselves what they stream.
    adopted = engine.execution_options(
        schema_translate_map=schemas,
        stream_results=False,
        yield_per=None,
        **layout_options(config.postgres),
    )

    @event.listens_for(adopted, "engine_connect")
    def set_up(connection: sa.Connection) -> None:
        _use_transactions(connection)
        _use_utf8(connection)

    @event.listens_for(adopted, "before_cursor_execute")
    def adapt_cursor(
        connection: sa.Connection, cursor: psycopg.Cursor[Any], *_rest: object
    ) -> None:
        adaptations = connection.info.get(_ADAPTATIONS)
        if adaptations is None:
            adaptations = differences(cursor.connection.adapters)
            connection.info[_ADAPTATIONS] = adaptations
        for adaptation in adaptations:
            adaptation(cursor)

    leave_replicas(adopted)
    explain_replay_conflicts(adopted)
    compile_for(adopted.dialect, config.postgres)
    _set_up_transactions(adopted, config.postgres)
    check_connections(adopted, config.postgres)
    _watch_connections(engine.pool)
    return adopted


def check_engine(engine: object) -> None:
    """Make sure that an application's engine can be used.

    Raises:
        ConfigError: it is no engine, or uses another driver.
    """
    rule = "must be an engine of sqlalchemy.create_engine('postgresql+psycopg://…')"
    if not isinstance(engine, sa.Engine):
        raise ConfigError(f"engine: {rule}, not {type(engine).__name__}")
    dialect = engine.dialect
    if (dialect.name, dialect.driver, dialect.is_async) != ("postgresql", "psycopg", False):
        raise ConfigError(f"engine: {rule}, not of {dialect.name}+{dialect.driver}")


def measure_acquisition(engine: sa.Engine, hooks: Hooks) -> None:
    """Report to the hooks how long the engine takes to get a connection.

    SQLAlchemy has events for connections that were taken, but none for the begin of the wait. Other
    engines that share the pool, such as the application's own, are not measured.
    """
    take = engine.raw_connection

    def raw_connection() -> PoolProxiedConnection:
        if not hooks.registered:
            return take()
        with hooks.measure("acquire"):
            return take()

    engine.raw_connection = raw_connection  # type: ignore[method-assign]


def _use_transactions(connection: sa.Connection) -> None:
    """Have the connection begin transactions, until it is given back to the application.

    In AUTOCOMMIT nothing could be rolled back, and no savepoint or server-side cursor would work.
    """
    driver = _driver_connection(connection)
    theirs = driver.autocommit, driver.isolation_level
    if theirs == (False, psycopg.IsolationLevel.READ_COMMITTED):
        return
    if not (driver.autocommit or _is_idle(driver)):
        return  # the application shares its transaction, by a StaticPool

    def give_back(_: object) -> None:
        if not driver.closed:
            driver.autocommit, driver.isolation_level = theirs

    driver.autocommit = False
    driver.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
    _when_given_back(connection, give_back)


def _use_utf8(connection: sa.Connection) -> None:
    """Have the connection speak UTF-8, until it is given back to the application."""
    driver = _driver_connection(connection)
    theirs = driver.info.parameter_status("client_encoding")
    if theirs in (None, "UTF8"):
        return

    def give_back(_: object) -> None:
        if not driver.closed:
            _set_encoding(driver, theirs)

    _set_encoding(driver, "UTF8")
    _when_given_back(connection, give_back)


def _set_encoding(driver: psycopg.Connection[Any], name: str) -> None:
    with translated():
        was_idle = _is_idle(driver)
        driver.execute("SELECT set_config('client_encoding', %s, false)", [name])
        if was_idle:
            driver.commit()


def _driver_connection(connection: sa.Connection) -> psycopg.Connection[Any]:
    return cast("psycopg.Connection[Any]", connection.connection.driver_connection)


def _is_idle(driver: psycopg.Connection[Any]) -> bool:
    return driver.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def _when_given_back(connection: sa.Connection, action: Callable[[object], None]) -> None:
    # As SQLAlchemy itself does to undo an isolation level.
    record: Any = connection.connection._connection_record
    record.finalize_callback.append(action)


def _watch_connections(pool: Pool) -> None:
    """Note which connections were used before, and replace those that a parent process opened.

    The latter is SQLAlchemy's recipe for forks that nothing tells of. `BoundedPool` does both by
    itself.
    """
    if isinstance(pool, BoundedPool) or pool in _watched:
        return
    _watched.add(pool)
    here = os.getpid()
    of_parents: list[object] = []

    @event.listens_for(pool, "connect")
    def opened(_: object, record: ConnectionPoolEntry) -> None:
        record.info["pid"] = os.getpid()

    @event.listens_for(pool, "checkin")
    def returned(_: object, record: ConnectionPoolEntry) -> None:
        record.info["was_returned"] = True

    @event.listens_for(pool, "checkout")
    def taken(connection: object, record: Any, proxy: Any) -> None:
        # A connection without a process was opened before this function was called.
        opener = record.info.setdefault("pid", here)
        if opener != os.getpid():
            # Referenced, since the garbage collector would close it.
            of_parents.append(connection)
            record.dbapi_connection = proxy.dbapi_connection = None
            raise DisconnectionError(f"opened by process {opener}, this one is {os.getpid()}")


@contextmanager
def single_attempt() -> Iterator[None]:
    """Within the block, do not retry a connection that cannot be opened."""
    token = _no_retry.set(True)
    try:
        yield
    finally:
        _no_retry.reset(token)


def _connect_with_retry(engine: sa.Engine, config: StorageConfig) -> None:
    retry = config.retry

    def log(state: tenacity.RetryCallState) -> None:
        logger.warning(
            "PostgreSQL cannot be reached, attempt %d of %d, next in %.2f s: %s",
            state.attempt_number,
            retry.max_attempts,
            state.upcoming_sleep,
            state.outcome.exception() if state.outcome else None,
        )

    attempts = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(retry.max_attempts),
        wait=backoff(retry),
        retry=tenacity.retry_if_exception(_may_succeed_later),
        before_sleep=log,
        reraise=True,
    )

    @event.listens_for(engine, "do_connect")
    def connect(
        dialect: sa.Dialect, _: object, args: list[Any], kwargs: dict[str, Any]
    ) -> DBAPIConnection:
        def connect_once() -> DBAPIConnection:
            # Asked for at each attempt: a token may expire between two of them.
            password = config.postgres.expiring_password()
            expiring = {} if password is None else {"password": password}
            return dialect.connect(*args, **{**kwargs, **expiring})

        return attempts.copy()(connect_once)


def _may_succeed_later(error: BaseException) -> bool:
    """Whether another attempt to connect may succeed. libpq reports no more than this."""
    if _no_retry.get() or not isinstance(error, psycopg.OperationalError):
        return False
    return not (error.pgconn is not None and error.pgconn.needs_password)


def _prepare_connections(engine: sa.Engine) -> None:
    @event.listens_for(engine, "connect")
    def prepare(connection: psycopg.Connection[Any], _: object) -> None:
        # psycopg reads times in this style only. The server reports the style when it connects,
        # so that mostly there is nothing to do; pgbouncer keeps it for each of its clients.
        style = connection.info.parameter_status("DateStyle")
        if style is not None and not style.startswith("ISO"):
            connection.execute("SET datestyle TO ISO")
            connection.commit()


def _set_up_transactions(engine: sa.Engine, config: PostgresConfig) -> None:
    settings = []
    if config.statement_timeout_ms:
        settings.append(f"SET LOCAL statement_timeout = {config.statement_timeout_ms:d}")
    if config.layout == "citus":
        settings.append(TRANSACTION_SETTINGS)
    if not settings:
        return
    statement = "; ".join(settings)

    @event.listens_for(engine, "begin")
    def limit(connection: sa.Connection) -> None:
        # For the transaction only, since pgbouncer shares sessions among clients. Executed by the
        # driver, since SQLAlchemy has not begun its transaction yet.
        cursor = connection.connection.cursor()
        try:
            cursor.execute(statement.encode())
        except psycopg.OperationalError as error:
            # The connection is lost. SQLAlchemy does not see errors of the driver here.
            connection.invalidate(error)
            raise
        cursor.close()
