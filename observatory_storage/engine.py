"""The engine: how connections to PostgreSQL are made, and what is set on them.

Works through pgbouncer in transaction mode: no startup ``options``, no prepared statements, and
nothing is set for a session that a transaction relies on.
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
    """An engine for the configuration; it connects when it is first used.

    Tables without a schema are those of the configured one. A connection that cannot be made is
    tried again as ``config.retry`` says.
    """
    pool = config.pool
    engine = sa.create_engine(
        config.postgres.url(),
        poolclass=BoundedPool,
        pool_size=pool.max_connections,
        max_overflow=0,
        pool_timeout=pool.acquire_timeout_secs,
        # The last one used is taken first, so that those not needed become idle for long.
        pool_use_lifo=True,
        connect_args={
            **config.postgres.connect_args(),
            "connect_timeout": pool.connect_timeout_secs,
            # A generic plan does not see the values: it can be ten times slower here. And
            # pgbouncer may run the next transaction on a server that has not prepared it.
            "prepare_threshold": None,
        },
        # Not left to the role's default: what the writers do on a conflict depends on it.
        isolation_level="READ COMMITTED",
        # Rows hold what users wrote: they have no place in errors and logs.
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
    """The application's engine as this package uses it; the application's own use stays as it is.

    They share the pool of connections. Everything else is set on cursors and transactions of the
    returned engine only.
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
    """In the block a connection that cannot be made is not tried again."""
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
        retry=tenacity.retry_if_exception(_may_pass),
        before_sleep=log,
        reraise=True,
    )

    @event.listens_for(engine, "do_connect")
    def connect(
        dialect: sa.Dialect, _: object, args: list[Any], kwargs: dict[str, Any]
    ) -> DBAPIConnection:
        return attempts.copy()(dialect.connect, *args, **kwargs)


def _may_pass(error: BaseException) -> bool:
    """Whether the next attempt to connect may do better: libpq says nothing more exact."""
    if _no_retry.get() or not isinstance(error, psycopg.OperationalError):
        return False
    return not (error.pgconn is not None and error.pgconn.needs_password)


def _prepare_connections(engine: sa.Engine) -> None:
    @event.listens_for(engine, "connect")
    def prepare(connection: psycopg.Connection[Any], _: object) -> None:
        adapt(connection)
        # psycopg reads times in this style only. The server reports the style when it connects,
        # so that mostly there is nothing to do; pgbouncer keeps it for each of its clients.
        style = connection.info.parameter_status("DateStyle")
        if style is not None and not style.startswith("ISO"):
            connection.execute("SET datestyle TO ISO")
            connection.commit()


def _leave_replicas(engine: sa.Engine) -> None:
    """Have connections replaced once one leads to a server that takes no writes.

    After a failover it may be the primary of before: the next attempt must not go there again.
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
        # For the transaction only: with pgbouncer the session is not ours to keep. By the driver,
        # since SQLAlchemy's own transaction is not yet there at this point.
        cursor = connection.connection.cursor()
        try:
            cursor.execute(f"SET LOCAL statement_timeout = {milliseconds:d}")
        except psycopg.OperationalError as error:
            # The connection is lost, of which SQLAlchemy does not hear.
            connection.invalidate(error)
            raise
        cursor.close()
