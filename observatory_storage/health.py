"""What a pool reports about itself: health of the servers behind it, and use of its connections."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import sqlalchemy as sa
from sqlalchemy.pool import QueuePool

from observatory_storage.bounded_pool import BoundedPool
from observatory_storage.engine import single_attempt
from observatory_storage.errors import translate, translated
from observatory_storage.serialization import Result

if TYPE_CHECKING:
    from redis import Redis

__all__ = [
    "ComponentHealth",
    "HealthReport",
    "PoolStats",
    "check_health",
    "check_redis",
    "pool_stats",
]

_NEAR_CAPACITY: Final = 0.8


@dataclass(frozen=True, slots=True)
class ComponentHealth(Result):
    """How one server answered: latency in milliseconds and its version, or the error."""

    ok: bool
    latency_ms: float
    version: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class HealthReport(Result):
    """``unhealthy`` without PostgreSQL, ``degraded`` without Redis; None: Redis is not used."""

    status: Literal["healthy", "degraded", "unhealthy"]
    postgres: ComponentHealth
    redis: ComponentHealth | None = None


@dataclass(frozen=True, slots=True)
class PoolStats(Result):
    """The connections of a pool.

    Attributes:
        size: those that are open, ``idle`` and ``active`` together.
        max: the most there can be; None where an application's pool has no bound.
        utilization: the part of ``max`` that is active, from 0 to 1.
        near_capacity: at least 80 % are active.
    """

    size: int
    idle: int
    active: int
    max: int | None
    min: int
    utilization: float
    near_capacity: bool


def check_health(engine: sa.Engine, redis: Redis | None) -> HealthReport:
    """Ask both servers, once and without retries. Never raises."""

    def postgres_version() -> str:
        with translated(), single_attempt(), engine.connect() as connection:
            statement = sa.text("SELECT pg_catalog.current_setting('server_version')")
            return str(connection.scalar(statement))

    postgres = _ask(postgres_version)
    cache = None if redis is None else check_redis(redis)
    if not postgres.ok:
        return HealthReport("unhealthy", postgres, cache)
    return HealthReport("healthy" if cache is None or cache.ok else "degraded", postgres, cache)


def check_redis(redis: Redis) -> ComponentHealth:
    """Ask Redis, once and without retries. Never raises."""
    return _ask(lambda: _redis_version(redis))


def pool_stats(engine: sa.Engine, minimum: int) -> PoolStats:
    """Count the connections of the engine's pool."""
    pool = engine.pool
    idle = active = 0
    most: int | None = None
    if isinstance(pool, BoundedPool):
        idle, active, most = pool.open_idle, pool.checkedout(), pool.size()
    elif isinstance(pool, QueuePool):
        idle, active = pool.checkedin(), pool.checkedout()
        overflow = pool._max_overflow
        most = pool.size() + overflow if overflow >= 0 and pool.size() else None
    utilization = active / most if most else 0.0
    return PoolStats(
        size=idle + active,
        idle=idle,
        active=active,
        max=most,
        min=minimum,
        utilization=utilization,
        near_capacity=utilization >= _NEAR_CAPACITY,
    )


def _redis_version(redis: Redis) -> str:
    from redis import ConnectionPool
    from redis import Redis as Client
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    # On a connection of its own: those of the pool try again, each time for as long.
    given = redis.connection_pool
    options = {**given.connection_kwargs, "retry": Retry(NoBackoff(), 0)}
    connections = ConnectionPool(given.connection_class, max_connections=1, **options)
    with Client.from_pool(connections) as once:
        server = once.info("server")
    # Valkey calls itself so, and says under the old name what it is compatible with.
    return str(server.get("valkey_version") or server["redis_version"])


def _ask(version: Callable[[], str]) -> ComponentHealth:
    began = time.perf_counter()
    try:
        answer, problem = version(), None
    except Exception as error:  # noqa: BLE001 - whatever is wrong is reported
        answer, problem = None, str(translate(error) or error) or type(error).__name__
    latency_ms = (time.perf_counter() - began) * 1000
    return ComponentHealth(problem is None, latency_ms, answer, problem)
