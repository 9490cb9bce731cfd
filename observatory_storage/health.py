"""Health checks of PostgreSQL and Redis, and statistics of a pool of connections."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import sqlalchemy as sa
from sqlalchemy.pool import QueuePool

from observatory_storage.bounded_pool import BoundedPool, acquire_within
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
_OF_POOL: Final = 0.8  # the part of the timeout for which the check waits for a connection


@dataclass(frozen=True, slots=True)
class ComponentHealth(Result):
    """The result of the health check of one server.

    Attributes:
        ok: whether the server answered.
        latency_ms: the milliseconds that the check took, getting a connection included.
        version: the version of the server, such as ``"18.1"``; None if it did not answer.
        error: why the check failed; None if it did not.
    """

    ok: bool
    latency_ms: float
    version: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class HealthReport(Result):
    """The result of `StoragePool.health_check`.

    Attributes:
        status: ``"healthy"``; ``"degraded"`` if Redis is configured but does not answer; or
            ``"unhealthy"`` if PostgreSQL does not answer.
        postgres: the check of PostgreSQL.
        redis: the check of Redis; None if Redis is not configured.
    """

    status: Literal["healthy", "degraded", "unhealthy"]
    postgres: ComponentHealth
    redis: ComponentHealth | None = None


@dataclass(frozen=True, slots=True)
class PoolStats(Result):
    """The connections that a pool has in this process.

    Attributes:
        size: the number of open connections, ``idle`` plus ``active``.
        idle: the number of open connections that are not in use.
        active: the number of connections in use.
        max: the most connections that the pool opens; None if your own engine has no limit.
        min: the number of connections that the pool keeps open; 0 for your own engine.
        utilization: ``active`` divided by ``max``, from 0 to 1.
        near_capacity: whether at least 80 % of ``max`` are active.
    """

    size: int
    idle: int
    active: int
    max: int | None
    min: int
    utilization: float
    near_capacity: bool


def check_health(
    engine: sa.Engine, redis: Redis | None, timeout: float | None = None
) -> HealthReport:
    """Ask both servers, once and without retries. Never raises.

    Args:
        timeout: seconds for both answers together; None for as long as the pool and the servers
            take.
    """
    # Less than the whole time, so that the pool's own error is reported if all connections are in
    # use.
    patience = None if timeout is None else timeout * _OF_POOL

    def postgres_version() -> str:
        with (
            translated(),
            single_attempt(),
            acquire_within(patience),
            engine.connect() as connection,
        ):
            statement = sa.text("SELECT pg_catalog.current_setting('server_version')")
            return str(connection.scalar(statement))

    questions: list[Callable[[], ComponentHealth]] = [lambda: _check(postgres_version)]
    if redis is not None:
        questions.append(lambda: check_redis(redis))
    postgres, cache = (*_answers(questions, timeout), None)[:2]
    assert postgres is not None
    if not postgres.ok:
        return HealthReport("unhealthy", postgres, cache)
    return HealthReport("healthy" if cache is None or cache.ok else "degraded", postgres, cache)


def _answers(
    questions: Sequence[Callable[[], ComponentHealth]], timeout: float | None
) -> list[ComponentHealth]:
    """The answers, in the order of the questions. After the timeout a question counts as failed."""
    if timeout is None:
        return [ask() for ask in questions]
    found: dict[int, ComponentHealth] = {}
    threads = [
        # A server that was paused does not answer a cancellation either, so the thread is
        # abandoned.
        threading.Thread(
            target=lambda index=index, ask=ask: found.update({index: ask()}),
            name="observatory-health",
            daemon=True,
        )
        for index, ask in enumerate(questions)
    ]
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = ComponentHealth(
        ok=False, latency_ms=timeout * 1000, error=f"no answer within {timeout:g} s"
    )
    return [found.get(index, late) for index in range(len(questions))]


def check_redis(redis: Redis) -> ComponentHealth:
    """Check Redis, once and without retries. Never raises."""
    return _check(lambda: _redis_version(redis))


def pool_stats(engine: sa.Engine, minimum: int) -> PoolStats:
    """Count the connections of the engine's pool."""
    pool = engine.pool
    idle = active = 0
    maximum: int | None = None
    if isinstance(pool, BoundedPool):
        idle, active, maximum = pool.open_idle, pool.checkedout(), pool.size()
    elif isinstance(pool, QueuePool):
        idle, active = pool.checkedin(), pool.checkedout()
        overflow = pool._max_overflow
        maximum = pool.size() + overflow if overflow >= 0 and pool.size() else None
    utilization = active / maximum if maximum else 0.0
    return PoolStats(
        size=idle + active,
        idle=idle,
        active=active,
        max=maximum,
        min=minimum,
        utilization=utilization,
        near_capacity=utilization >= _NEAR_CAPACITY,
    )


def _redis_version(redis: Redis) -> str:
    from redis import ConnectionPool
    from redis import Redis as Client
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    # On a connection of its own, since those of the pool retry.
    pool = redis.connection_pool
    options = {**pool.connection_kwargs, "retry": Retry(NoBackoff(), 0)}
    connections = ConnectionPool(pool.connection_class, max_connections=1, **options)
    with Client.from_pool(connections) as client:
        server = client.info("server")
    # Valkey reports its own version as valkey_version; redis_version is the one it is compatible
    # with.
    return str(server.get("valkey_version") or server["redis_version"])


def _check(read_version: Callable[[], str]) -> ComponentHealth:
    began = time.perf_counter()
    try:
        version, problem = read_version(), None
    except Exception as error:  # noqa: BLE001 - every error is reported
        version, problem = None, str(translate(error) or error) or type(error).__name__
    latency_ms = (time.perf_counter() - began) * 1000
    return ComponentHealth(problem is None, latency_ms, version, problem)
