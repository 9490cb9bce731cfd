"""`StoragePool`: the engine, the Redis client and the schema. Every program starts with it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, cast

import sqlalchemy as sa

from observatory_storage.bounded_pool import BoundedPool
from observatory_storage.cache import Cache
from observatory_storage.commits import Commits
from observatory_storage.config import PostgresConfig, StorageConfig
from observatory_storage.distribution import any_layout
from observatory_storage.engine import (
    adopt_engine,
    check_engine,
    create_engine,
    measure_acquisition,
)
from observatory_storage.errors import ConfigError, translated
from observatory_storage.layout import Partitions
from observatory_storage.lifecycle.background import BackgroundMaintenance
from observatory_storage.llm import use_own_aliases
from observatory_storage.operations import AnyHook, Hooks
from observatory_storage.payloads import zstd_module
from observatory_storage.pool_reads import PoolReads
from observatory_storage.pool_upkeep import PoolUpkeep
from observatory_storage.pricing import PriceBook
from observatory_storage.read_only_engine import reading
from observatory_storage.redis_client import redis_client
from observatory_storage.replication_lag import LagMeter
from observatory_storage.rows import Rules
from observatory_storage.streams.live_pool import LivePool
from observatory_storage.streams.publisher import publisher_of

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["StoragePool"]

_log: Final = logging.getLogger(__name__)


class StoragePool(PoolReads, PoolUpkeep, LivePool):
    """A pool of connections to PostgreSQL, and to Redis if it is configured.

    Create one pool for each process and share it between threads. After a fork, parent and child
    can both use it: the child opens connections of its own. Use the pool as a context manager, or
    call `close`.

    Example::

        with StoragePool.from_env() as pool:
            pool.run_migrations()
            with pool.unit_of_work() as uow:
                for trace in uow.traces.list():
                    print(trace.trace_id, trace.duration_us)

    Args:
        config: the servers to connect to, and the limits of the pool.
        connect: whether to open ``config.pool.min_connections`` connections now, with retries. If
            False, the first use connects, with the same retries.
        hooks: are told what the store does; see `add_hook`.

    Raises:
        ConfigError: payloads shall be compressed, and Zstandard is not installed.
        ConnectionLost: PostgreSQL could not be reached. The last error is its cause.
        PoolError: the server or the pool has no free connection.

    Attributes:
        config: the configuration.
        engine: the SQLAlchemy engine. In its statements, tables without a schema are in `schema`.
        read_engine: the engine of read-only units of work, whose transactions are read only: it
            connects to the server of ``DATABASE_READ_URL``, or as `engine` does.
        has_read_server: whether read-only units of work have a server of their own.
        redis: the Redis client, or None if Redis is not configured.
        schema: the schema that contains the tables.
        partitions: the existing partitions. Writers create more when rows need them.
        rules: the rules of the configuration for what is written; None if there are none.
        prices: the stored prices of models, with which writers compute costs.
        commits: the listeners that hear of what was committed.
        cache: the cache of reads in Redis.
        hooks: the hooks that are told what the store does.
    """

    redis: Redis | None
    cache: Cache

    def __init__(
        self, config: StorageConfig, *, connect: bool = True, hooks: Iterable[AnyHook] = ()
    ) -> None:
        _check_config(config)
        read_server = config.postgres.read_server()
        read_engine = None
        if read_server is not None:
            read_engine = create_engine(config.model_copy(update={"postgres": read_server}))
        self._set_up(config, create_engine(config), read_engine, hooks, owned=True)
        if connect:
            try:
                self._open_minimum()
            except BaseException:
                self.close()
                raise

    @classmethod
    def from_env(cls, *, connect: bool = True, hooks: Iterable[AnyHook] = ()) -> Self:
        """Create a pool from the environment and ``.env``, as `StorageConfig.from_env` reads them.

        Raises:
            ConfigError: a setting is missing or invalid.
            ConnectionLost: PostgreSQL could not be reached.
        """
        return cls(StorageConfig.from_env(), connect=connect, hooks=hooks)

    @classmethod
    def from_engine(
        cls,
        engine: sa.Engine,
        config: StorageConfig | None = None,
        *,
        schema: str | None = None,
        hooks: Iterable[AnyHook] = (),
        read_engine: sa.Engine | None = None,
    ) -> Self:
        """Create a pool that uses the connections of your application's own engine.

        The pool of the engine limits and recycles the connections, and the engine's driver options
        apply; ``connect_args={"prepare_threshold": None}`` is recommended. Your own use of the
        engine does not change, and `close` leaves it open. After a fork, the child replaces the
        connections of the engine, as SQLAlchemy recommends for every application that forks.

        Example::

            engine = sqlalchemy.create_engine(
                "postgresql+psycopg://app@localhost/app",
                connect_args={"prepare_threshold": None},
            )
            pool = StoragePool.from_engine(engine, schema="telemetry")

        Args:
            engine: a synchronous engine that uses psycopg 3 (``postgresql+psycopg://``).
            config: sets the schema, the statement timeout, Redis and retries. Its settings about
                connections to PostgreSQL are ignored.
            schema: the schema, if there is no `config`. The default is ``public``.
            hooks: are told what the store does; see `add_hook`.
            read_engine: your application's engine for a standby, which read-only units of work use.
                Without it they use `engine`.

        Raises:
            ConfigError: an engine uses another driver, both `config` and `schema` are given, or
                there is a `read_engine` with the layout citus.
        """
        check_engine(engine)
        if read_engine is not None:
            check_engine(read_engine)
        if config is not None and schema is not None:
            raise ConfigError("schema: set it in the configuration or pass it, not both")
        if config is not None:
            _check_config(config)
        else:
            config = StorageConfig(postgres=PostgresConfig(schema=schema or "public"))
        if read_engine is not None and config.postgres.layout == "citus":
            raise ConfigError("read_engine: must be omitted with the layout citus")
        pool = cls.__new__(cls)
        engine = adopt_engine(engine, config)
        read_engine = None if read_engine is None else adopt_engine(read_engine, config)
        pool._set_up(config, engine, read_engine, hooks, owned=False)
        return pool

    def run_migrations(self) -> None:
        """Migrate the schema to the newest revision, as ``alembic upgrade head`` does.

        If several processes call this at the same time, one migrates and the others wait.

        Raises:
            MigrationError: a migration failed, and changed nothing; or a newer version of this
                package has migrated the schema.
            ConnectionLost: PostgreSQL could not be reached.
            PoolError: no connection became free in time.
        """
        # Most processes never migrate, so they need not wait for Alembic when they start.
        from observatory_storage import migrate

        with self.hooks.measure("migrate"), any_layout():
            migrate.upgrade(self.engine, self.schema)
        self.partitions.forget()
        self.prices.forget()

    def add_hook(self, hook: AnyHook) -> None:
        """Have a hook told of every operation of the store: what was done, and how it went.

        A hook is an object with a method ``on_operation``, or a function; it gets a
        `StoreOperation`. Adding it again has no effect. Without hooks nothing is measured.

        Example::

            def note_errors(operation: StoreOperation) -> None:
                if operation.outcome != "ok":
                    print(operation.operation, operation.table, operation.outcome)

            pool.add_hook(note_errors)

        Raises:
            ValidationError: it is no hook.
        """
        self.hooks.add(hook)
        attach = getattr(hook, "attach", None)
        if attach is not None:
            attach(self)

    def remove_hook(self, hook: AnyHook) -> None:
        """Remove a hook. A hook that was not added is ignored."""
        self.hooks.remove(hook)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def before_close(self, action: Callable[[], object]) -> Callable[[], None]:
        """Have `close` call a function first, such as the `TraceWriter.close` of a writer.

        Functions are called in the reverse order of adding them, each once. What they raise is
        logged.

        Returns:
            a function that takes it back, for what is closed before the pool.
        """
        self._before_close.append(action)

        def take_back() -> None:
            with suppress(ValueError):  # it was called or taken back already
                self._before_close.remove(action)

        return take_back

    def close(self) -> None:
        """Close idle connections now, and the others when they are returned to the pool.

        Your own engine (see `from_engine`) stays open. Calling this again has no effect.
        """
        while self._before_close:
            try:
                self._before_close.pop()()
            except Exception:  # noqa: BLE001 - the pool is to be closed whatever happens
                _log.exception("a function that was to be called before the pool closes failed")
        self._closed = True
        if self._background is not None:
            self._background.stop()
        if self._publisher is not None:
            self._publisher.close()
        if self._owned:
            for engine in (self.engine, self.read_engine):
                cast(BoundedPool, engine.pool).close()
        self.cache.close()
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

    def _set_up(
        self,
        config: StorageConfig,
        engine: sa.Engine,
        read_engine: sa.Engine | None,
        hooks: Iterable[AnyHook],
        *,
        owned: bool,
    ) -> None:
        if config.llm.aliases:
            use_own_aliases(config.llm.aliases)
        self.config = config
        self.engine = engine
        self.hooks = Hooks()
        measure_acquisition(engine, self.hooks)
        self.has_read_server = read_engine is not None
        self.read_engine = reading(engine if read_engine is None else read_engine)
        measure_acquisition(self.read_engine, self.hooks)
        self.lag_meter = LagMeter()
        self.schema = config.postgres.schema_name
        self.partitions = Partitions(engine, self.schema, config.partitions)
        self.rules = Rules.of(config.rules)
        self.prices = PriceBook(engine, enabled=config.pricing.compute_costs)
        self.redis = redis_client(config.redis, config.retry)
        self.commits = Commits()
        self.cache = Cache(config, engine, self.commits, self.hooks)
        self._publisher = publisher_of(config, engine, self.schema, self.hooks)
        if self._publisher is not None:
            self.commits.add(self._publisher)
        self._owned = owned
        self._closed = False
        self._before_close: list[Callable[[], object]] = []
        for hook in hooks:
            self.add_hook(hook)
        self._background: BackgroundMaintenance | None = None
        if config.maintenance.background:
            # Imported before the thread starts: a fork while a thread imports would leave the child
            # with a half of a module.
            import_module("observatory_storage.lifecycle.steps")
            interval = config.maintenance.interval
            self._background = BackgroundMaintenance(self.maintain_in_turn, interval)
            self._background.start_with(engine)

    def _open_minimum(self) -> None:
        with translated(), ExitStack() as connections:
            for _ in range(max(1, self.config.pool.min_connections)):
                connections.enter_context(self.engine.connect())


def _check_config(config: StorageConfig) -> None:
    # The value is not shown: it may be a URL with a password.
    if not isinstance(config, StorageConfig):
        raise ConfigError(
            f"config: must be a StorageConfig, not {type(config).__name__}; for a URL, use"
            " StorageConfig(postgres=PostgresConfig.from_url(url))"
        )
    if config.payloads.mode == "compressed":
        zstd_module()
