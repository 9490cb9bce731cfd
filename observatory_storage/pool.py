"""`StoragePool`: the engine, the Redis client and the schema. Every program starts with it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

import sqlalchemy as sa
from sqlalchemy.orm import Session

from observatory_storage import migrate
from observatory_storage.bounded_pool import BoundedPool
from observatory_storage.commits import Commits, follow_session
from observatory_storage.config import PostgresConfig, StorageConfig
from observatory_storage.engine import adopt_engine, check_engine, create_engine
from observatory_storage.errors import ConfigError, PoolError, ValidationError, translated
from observatory_storage.health import HealthReport, PoolStats, check_health, pool_stats
from observatory_storage.layout import Partitions
from observatory_storage.lifecycle.background import BackgroundMaintenance
from observatory_storage.lifecycle.maintenance import MaintenanceReport, run_steps
from observatory_storage.lifecycle.run import Run
from observatory_storage.lifecycle.steps import STEPS
from observatory_storage.llm import use_own_aliases
from observatory_storage.payloads import zstd_module
from observatory_storage.pricing import PriceBook
from observatory_storage.redis_client import redis_client
from observatory_storage.repositories.reading import validation
from observatory_storage.rows import Rules
from observatory_storage.storing import (
    RefreshedFacts,
    SettledUsage,
    refresh_facts,
    settle_usage,
)
from observatory_storage.streams.live_pool import LivePool, publisher_of
from observatory_storage.unit_of_work import UnitOfWork

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["StoragePool"]


class StoragePool(LivePool):
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

    Raises:
        ConfigError: payloads shall be compressed, and Zstandard is not installed.
        ConnectionLost: PostgreSQL could not be reached. The last error is its cause.
        PoolError: the server or the pool has no free connection.

    Attributes:
        config: the configuration.
        engine: the SQLAlchemy engine. In its statements, tables without a schema are in `schema`.
        redis: the Redis client, or None if Redis is not configured.
        schema: the schema that contains the tables.
        partitions: the existing partitions. Writers create more when rows need them.
        rules: the rules of the configuration for what is written; None if there are none.
        prices: the stored prices of models, with which writers compute costs.
        commits: the listeners that hear of what was committed.
    """

    config: StorageConfig
    engine: sa.Engine
    redis: Redis | None
    schema: str
    partitions: Partitions
    rules: Rules | None
    prices: PriceBook
    commits: Commits

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
        """Create a pool from the environment and ``.env``, as `StorageConfig.from_env` reads them.

        Raises:
            ConfigError: a setting is missing or invalid.
            ConnectionLost: PostgreSQL could not be reached.
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

        Raises:
            ConfigError: the engine uses another driver, or both `config` and `schema` are given.
        """
        check_engine(engine)
        if config is not None and schema is not None:
            raise ConfigError("schema: set it in the configuration or pass it, not both")
        if config is not None:
            _check_config(config)
        else:
            config = StorageConfig(postgres=PostgresConfig(schema=schema or "public"))
        pool = cls.__new__(cls)
        engine = adopt_engine(engine, config)
        pool._set_up(config, engine, owned=False)
        return pool

    def unit_of_work(self) -> UnitOfWork:
        """Create a unit of work: one transaction, with the repositories that read in it.

        It takes a connection from the pool with its first statement and returns it at the end.

        Raises:
            PoolError: the pool is closed.
        """
        if self._closed:
            raise PoolError("the pool is closed", retryable=False)
        session = Session(
            self.engine, autoflush=False, expire_on_commit=False, close_resets_only=False
        )
        follow_session(self.commits, session)
        return UnitOfWork(session, self)

    def run_migrations(self) -> None:
        """Migrate the schema to the newest revision, as ``alembic upgrade head`` does.

        If several processes call this at the same time, one migrates and the others wait.

        Raises:
            MigrationError: a migration failed, and changed nothing; or a newer version of this
                package has migrated the schema.
            ConnectionLost: PostgreSQL could not be reached.
            PoolError: no connection became free in time.
        """
        migrate.upgrade(self.engine, self.schema)
        self.partitions.forget()
        self.prices.forget()

    def maintain(
        self,
        for_secs: float | None = None,
        *,
        now: datetime | None = None,
        progress: Callable[[str], object] | None = None,
    ) -> MaintenanceReport:
        """Do what the store needs from time to time, as ``observatory-storage maintain`` does.

        Call it regularly, for example every minute, from cron, Celery beat or a thread; or switch
        ``maintenance.background`` on. Readers and writers go on meanwhile. If another process is
        maintaining the store, the call returns at once. It may be killed at any point: the next
        call goes on where it stopped.

        It needs three connections of the pool, and a role that owns the tables.

        Example::

            report = pool.maintain(for_secs=60)
            for step in report.steps:
                print(step.name, step.result)

        Args:
            for_secs: stop after about so many seconds. What is left is done by the next call. None
                is no bound.
            now: the time that ages are counted from. The default is that of the clock.
            progress: is called with lines that tell people what has been done.

        Raises:
            MaintenanceError: steps failed. All other steps ran; its ``report`` has both.
            ValidationError: ``now`` has no time zone, or ``for_secs`` is negative or no number.
            PoolError: the pool has fewer than three connections.
            StorageError: PostgreSQL could not be used.
        """
        return run_steps(Run.of(self, for_secs, now, progress), STEPS)

    def settle_usage(self, max_traces: int | None = None) -> SettledUsage:
        """Let the usage of model calls count once that spans of several traces report.

        Within a trace, writers see to that. If several traces report a call, or a trace has more
        than 1,000 spans, its usage may count too often until the next settlement. A settlement also
        fills the user and session of spans whose log records came before them. Call this
        regularly, for example every minute. It looks only at traces that writers have marked, in
        transactions of a hundred traces, and can run beside writers and beside itself.

        Args:
            max_traces: settle at most so many traces; the others stay marked. None settles all
                traces that are marked now.

        Raises:
            StorageError: the database could not be used. What was settled before stays settled.
            ValidationError: ``max_traces`` is not a positive integer.
        """
        return settle_usage(self, max_traces)

    def refresh_facts(
        self,
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        max_spans: int | None = None,
        progress: Callable[[RefreshedFacts], object] | None = None,
    ) -> RefreshedFacts:
        """Compute the LLM columns of stored spans again, from their attributes and events.

        Call this after an upgrade that reads more, and after a change of ``llm.aliases``. It covers
        the spans that start within [start, end), in transactions of at most 500. Usage is counted
        once again, and the totals of traces follow. Afterwards `settle_usage` sees to calls that
        several traces report.

        A column is overwritten only if the attributes or events tell a value for it. So a value
        that your application gave itself stays, unless an attribute contradicts it; and so does a
        value of an attribute that is not read any more. What is right already is not written, so
        repeating the call changes nothing. It can run beside writers and beside itself.

        Example::

            refreshed = pool.refresh_facts(datetime(2026, 7, 1, tzinfo=UTC))
            print(refreshed.spans, refreshed.changed_spans)

        Args:
            start: the first start; None begins with the oldest span.
            end: the first start that is left out; None is no bound.
            max_spans: stop after so many spans, and those that start at the same time as the last
                one. `RefreshedFacts.next_start` is the `start` of the next call.
            progress: is called after each transaction with what was done so far. If the call is
                interrupted, the last `next_start` continues it.

        Raises:
            StorageError: the database could not be used. What was refreshed before stays refreshed.
            ValidationError: a time has no time zone, ``end`` is before ``start``, or ``max_spans``
                is not a positive integer.
        """
        first, last = validation.moment("start", start), validation.moment("end", end)
        if first is not None and last is not None and last < first:
            raise ValidationError("end", end, f"must not be before start={start}")
        return refresh_facts(self, first, last, max_spans=max_spans, progress=progress)

    def health_check(self, timeout: float | None = None) -> HealthReport:
        """Ask PostgreSQL and Redis how they are, once each. Never raises.

        Args:
            timeout: a server that has not answered after this many seconds counts as failed, also
                if all connections are in use. None waits as long as the pool's
                ``acquire_timeout_secs`` and the connection's timeouts allow.
        """
        return check_health(self.engine, self.redis, timeout)

    def stats(self) -> PoolStats:
        """Count the connections of this process: open, idle, and in use."""
        minimum = self.config.pool.min_connections if self._owned else 0
        return pool_stats(self.engine, minimum)

    def close(self) -> None:
        """Close idle connections now, and the others when they are returned to the pool.

        Your own engine (see `from_engine`) stays open. Calling this again has no effect.
        """
        self._closed = True
        if self._background is not None:
            self._background.stop()
        if self._publisher is not None:
            self._publisher.close()
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
        if config.llm.aliases:
            use_own_aliases(config.llm.aliases)
        self.config = config
        self.engine = engine
        self.schema = config.postgres.schema_name
        self.partitions = Partitions(engine, self.schema, config.partitions)
        self.rules = Rules.of(config.rules)
        self.prices = PriceBook(engine, enabled=config.pricing.compute_costs)
        self.redis = redis_client(config.redis, config.retry)
        self.commits = Commits()
        self._publisher = publisher_of(config, engine, self.schema)
        if self._publisher is not None:
            self.commits.add(self._publisher)
        self._owned = owned
        self._closed = False
        self._background: BackgroundMaintenance | None = None
        if config.maintenance.background:
            interval = config.maintenance.interval
            self._background = BackgroundMaintenance(self._maintain_in_turn, interval)
            self._background.start_with(engine)

    def _maintain_in_turn(self) -> MaintenanceReport:
        """Maintain the store, unless another process did so within the interval."""
        settings = self.config.maintenance
        run = Run.of(self, settings.max_duration.total_seconds())
        return run_steps(run, STEPS, min_interval=settings.interval * 0.9)

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
