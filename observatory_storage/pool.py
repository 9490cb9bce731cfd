"""`StoragePool`: the engine, Redis and the schema together, and where everything starts."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from observatory_storage import migrate
from observatory_storage.bounded_pool import BoundedPool
from observatory_storage.config import PostgresConfig, RedisConfig, RetryConfig, StorageConfig
from observatory_storage.engine import adopt_engine, create_engine
from observatory_storage.errors import ConfigError, PoolError, translated
from observatory_storage.health import HealthReport, PoolStats, check_health, pool_stats
from observatory_storage.layout import Partitions
from observatory_storage.unit_of_work import UnitOfWork

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["StoragePool"]


class StoragePool:
    """Connections to PostgreSQL, and to Redis where it is configured. Thread-safe.

    A process that forks may go on using its pool on both sides: the child makes connections of
    its own. Use it as a context manager, or `close` it.

    Args:
        config: what to connect to.
        connect: open the minimum of connections now, with retries; otherwise the first use
            connects, with the same retries.

    Raises:
        ConnectionLost: the server could not be reached, with the last error as its cause.

    Attributes:
        config: the configuration.
        engine: SQLAlchemy's engine; tables without a schema are those of `schema`.
        redis: the client, or None.
        schema: the schema that holds the tables.
        partitions: the partitions that are there; they are made as rows need them.
    """

    config: StorageConfig
    engine: sa.Engine
    redis: Redis | None
    schema: str
    partitions: Partitions

    def __init__(self, config: StorageConfig, *, connect: bool = True) -> None:
        _check_config(config)
        self._set_up(config, create_engine(config), owned=True)
        if connect:
            try:
                self._open_minimum()
            except BaseException:
                self.close()
                raise

    @classmethod
    def from_env(cls, *, connect: bool = True) -> Self:
        """A pool for `StorageConfig.from_env()`.

        Raises:
            ConfigError, ConnectionLost: as those two do.
        """
        return cls(StorageConfig.from_env(), connect=connect)

    @classmethod
    def from_engine(
        cls,
        engine: sa.Engine,
        config: StorageConfig | None = None,
        *,
        schema: str | None = None,
    ) -> Self:
        """A pool on the connections of an engine that the application has.

        The engine is used as it is: its pool bounds and recycles the connections, its driver
        options hold (``connect_args={"prepare_threshold": None}`` is recommended), its own use
        does not change, and `close` leaves it open. After a fork its connections are replaced in
        the child, as SQLAlchemy asks of every application that forks.

        Args:
            engine: an engine over psycopg 3, ``postgresql+psycopg://``.
            config: for the schema, the statement timeout, Redis and retries; the sections about
                the connection are not used.
            schema: the schema, where there is no `config`; ``public`` by default.

        Raises:
            ConfigError: another kind of engine, or both `config` and `schema`.
        """
        _check_engine(engine)
        if config is not None and schema is not None:
            raise ConfigError("give the schema in the configuration or beside it, not both")
        if config is not None:
            _check_config(config)
        else:
            config = StorageConfig(postgres=PostgresConfig(schema=schema or "public"))
        pool = cls.__new__(cls)
        engine = adopt_engine(engine, config)
        pool._set_up(config, engine, owned=False)
        return pool

    def unit_of_work(self) -> UnitOfWork:
        """A unit of work on one connection of the pool.

        Raises:
            PoolError: the pool is closed.
        """
        if self._closed:
            raise PoolError("the pool is closed", retryable=False)
        session = Session(
            self.engine, autoflush=False, expire_on_commit=False, close_resets_only=False
        )
        return UnitOfWork(session, self)

    def run_migrations(self) -> None:
        """Bring the schema up to date: what ``alembic upgrade head`` does.

        Processes that do so at once migrate once.

        Raises:
            MigrationError, ConnectionLost, PoolError: see `observatory_storage.migrate.upgrade`.
        """
        migrate.upgrade(self.engine, self.schema)
        self.partitions.forget()

    def health_check(self, timeout: float | None = None) -> HealthReport:
        """Ask PostgreSQL and Redis how they are, once each. Never raises.

        Args:
            timeout: seconds after which what has not answered counts as failed, whether all
                connections are in use or a server is silent. None waits as long as the pool's
                ``acquire_timeout_secs`` and the connection's timeouts allow.
        """
        return check_health(self.engine, self.redis, timeout)

    def stats(self) -> PoolStats:
        """How many connections there are, and how many are in use."""
        minimum = self.config.pool.min_connections if self._owned else 0
        return pool_stats(self.engine, minimum)

    def close(self) -> None:
        """Close the connections: idle ones now, the others when they are given back.

        An engine of the application stays open. May be called more than once.
        """
        self._closed = True
        if self._owned:
            cast(BoundedPool, self.engine.pool).close()
        if self.redis is not None:
            self.redis.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        address = self.engine.url.set(query={}).render_as_string(hide_password=True)
        return f"<StoragePool {address} schema={self.schema!r}>"

    def _set_up(self, config: StorageConfig, engine: sa.Engine, *, owned: bool) -> None:
        self.config = config
        self.engine = engine
        self.schema = config.postgres.schema_name
        self.partitions = Partitions(engine, self.schema)
        self.redis = _redis_client(config.redis, config.retry)
        self._owned = owned
        self._closed = False

    def _open_minimum(self) -> None:
        with translated(), ExitStack() as connections:
            for _ in range(max(1, self.config.pool.min_connections)):
                connections.enter_context(self.engine.connect())


def _check_config(config: StorageConfig) -> None:
    # Given a URL instead: it may hold a password, and is not shown.
    if not isinstance(config, StorageConfig):
        raise ConfigError(
            f"config: must be StorageConfig, not {type(config).__name__}; for a URL:"
            " StorageConfig(postgres=PostgresConfig.from_url(url))"
        )


def _check_engine(engine: sa.Engine) -> None:
    rule = "must be an engine of sqlalchemy.create_engine('postgresql+psycopg://…')"
    if not isinstance(engine, sa.Engine):
        raise ConfigError(f"engine: {rule}, not {type(engine).__name__}")
    dialect = engine.dialect
    if (dialect.name, dialect.driver, dialect.is_async) != ("postgresql", "psycopg", False):
        raise ConfigError(f"engine: {rule}, not of {dialect.name}+{dialect.driver}")


def _redis_client(config: RedisConfig, retry: RetryConfig) -> Redis | None:
    if config.url is None:
        return None
    # Many do without Redis: imported where it is used.
    from redis import BlockingConnectionPool, Redis
    from redis.backoff import ExponentialWithJitterBackoff
    from redis.retry import Retry

    url = config.url.get_secret_value()
    options: dict[str, Any] = {
        "max_connections": config.pool_size,
        "timeout": config.timeout_secs,
        "socket_timeout": config.timeout_secs,
        "socket_connect_timeout": config.timeout_secs,
        "retry": Retry(
            ExponentialWithJitterBackoff(
                base=retry.initial_delay_ms / 1000, cap=retry.max_delay_ms / 1000
            ),
            retry.max_attempts - 1,
        ),
    }
    connections = BlockingConnectionPool.from_url(url, **options)
    return Redis.from_pool(connections)
