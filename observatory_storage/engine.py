"""The SQLAlchemy engine: how connections to PostgreSQL are opened and configured.

It works through pgbouncer in transaction mode. It sends no startup ``options``, prepares no
statements, and sets nothing on a session that a transaction depends on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

import psycopg
import sqlalchemy as sa
import tenacity
from sqlalchemy import event
from sqlalchemy.engine.interfaces import DBAPIConnection

from observatory_storage.adaptation import adapt
from observatory_storage.backoff import backoff
from observatory_storage.bounded_pool import BoundedPool, recycle_connections
from observatory_storage.config import RetryConfig, StorageConfig

__all__ = ["adopt_engine", "create_engine", "single_attempt"]

logger = logging.getLogger(__name__)

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
        },
        # Set explicitly, since the writers' handling of conflicts depends on it.
        isolation_level="READ COMMITTED",
        # Rows contain what users wrote, which must not appear in errors and logs.
        hide_parameters=True,
        use_native_hstore=False,
        execution_options={"schema_translate_map": {None: config.postgres.schema_name}},
    )
    cast(BoundedPool, engine.pool).set_limits(pool)
    _connect_with_retry(engine, config.retry)
    _prepare_connections(engine)
    recycle_connections(engine, pool)
    _leave_replicas(engine)
    _limit_statements(engine, config.postgres.statement_timeout_ms)
    return engine


def adopt_engine(engine: sa.Engine, config: StorageConfig) -> sa.Engine:
    """An engine for this package that shares the connections of the application's engine.

    All other settings apply to cursors and transactions of the returned engine only, so the
    application's use of its own engine does not change.
    """
    options = dict(engine.get_execution_options().get("schema_translate_map") or {})
    options[None] = config.postgres.schema_name
    adopted = engine.execution_options(schema_translate_map=options)

    @event.listens_for(adopted, "before_cursor_execute")
    def adapt_cursor(_: object, cursor: psycopg.Cursor[Any], *_rest: object) -> None:
        adapt(cursor)

    _limit_statements(adopted, config.postgres.statement_timeout_ms)
    return adopted


@contextmanager
def single_attempt() -> Iterator[None]:
    """Within the block, do not retry a connection that cannot be opened."""
    token = _no_retry.set(True)
    try:
        yield
    finally:
        _no_retry.reset(token)


def _connect_with_retry(engine: sa.Engine, retry: RetryConfig) -> None:
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
        return attempts.copy()(dialect.connect, *args, **kwargs)


def _may_succeed_later(error: BaseException) -> bool:
    """Whether another attempt to connect may succeed. libpq reports no more than this."""
    if _no_retry.get() or not isinstance(error, psycopg.OperationalError):
        return False
    return not (error.pgconn is not None and error.pgconn.needs_password)


def _prepare_connections(engine: sa.Engine) -> None:
    @event.listens_for(engine, "connect")
    def prepare(connection: psycopg.Connection[Any], _: object) -> None:
        adapt(connection)
        # psycopg parses times in ISO style only. The server reports its style at connect, so this
        # usually costs nothing. pgbouncer keeps the setting for each client.
        style = connection.info.parameter_status("DateStyle")
        if style is not None and not style.startswith("ISO"):
            connection.execute("SET datestyle TO ISO")
            connection.commit()


def _leave_replicas(engine: sa.Engine) -> None:
    """Discard all connections when one of them leads to a read-only server.

    After a failover that server may be the former primary, to which no attempt should go again.
    """

    @event.listens_for(engine, "handle_error")
    def leave(context: sa.ExceptionContext) -> None:
        if isinstance(context.original_exception, psycopg.errors.ReadOnlySqlTransaction):
            context.is_disconnect = True


def _limit_statements(engine: sa.Engine, milliseconds: int) -> None:
    if not milliseconds:
        return

    @event.listens_for(engine, "begin")
    def limit(connection: sa.Connection) -> None:
        # For the transaction only, since pgbouncer shares sessions among clients. Executed by the
        # driver, since SQLAlchemy has not begun its transaction yet.
        cursor = connection.connection.cursor()
        try:
            cursor.execute(f"SET LOCAL statement_timeout = {milliseconds:d}")
        except psycopg.OperationalError as error:
            # The connection is lost. SQLAlchemy does not see errors of the driver here.
            connection.invalidate(error)
            raise
        cursor.close()
