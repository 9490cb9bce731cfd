"""Health checks of PostgreSQL and Redis, statistics of a pool, and both over HTTP."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol
from wsgiref.types import WSGIApplication

import sqlalchemy as sa
from sqlalchemy.pool import QueuePool

from observatory_storage import migrate
from observatory_storage.bounded_pool import BoundedPool, acquire_within
from observatory_storage.engine import single_attempt
from observatory_storage.errors import ConfigError, MigrationError, translate, translated
from observatory_storage.health_app import PATHS, Answer, HealthApp
from observatory_storage.operations import Hooks
from observatory_storage.serialization import Result

if TYPE_CHECKING:
    from redis import Redis

__all__ = [
    "ComponentHealth",
    "HealthReport",
    "PoolStats",
    "check_health",
    "check_redis",
    "check_schema",
    "create_app",
    "pool_stats",
]

logger = logging.getLogger(__name__)

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


def check_schema(engine: sa.Engine, schema: str, timeout: float | None = None) -> ComponentHealth:
    """Ask PostgreSQL for the revision of the schema, once and without retries. Never raises.

    It is not ok if migrations are pending. A schema that a newer release has migrated is ok, since
    processes of the release before go on while they are replaced.

    Returns:
        The revision is its ``version``.
    """
    patience = None if timeout is None else timeout * _OF_POOL

    def revision() -> str:
        with single_attempt(), acquire_within(patience):
            at = migrate.current(engine, schema)
        known = _known_revisions()
        if at is None or at in known[:-1]:
            raise MigrationError(
                f"schema {schema!r} is at {at or 'no revision'}, and {known[-1]} is needed: migrate"
            )
        return at

    (answer,) = _answers([lambda: _check(revision)], timeout)
    return answer


@cache
def _known_revisions() -> tuple[str, ...]:
    """The revisions that this version of the package knows, in their order."""
    return tuple(migrate.revisions())


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


class HealthSource(Protocol):
    """The attributes of a pool that its health needs."""

    @property
    def engine(self) -> sa.Engine: ...
    @property
    def schema(self) -> str: ...
    @property
    def hooks(self) -> Hooks: ...
    def health_check(self, timeout: float | None = None) -> HealthReport: ...


def create_app(
    pool: HealthSource | None = None, *, timeout_secs: float = 2.0, details: bool = False
) -> WSGIApplication:
    """A WSGI application that tells platforms and Prometheus how the store is.

    It answers ``GET`` and ``HEAD``, below the path at which it is mounted:

    - ``/health``: the ``status`` of `StoragePool.health_check` as JSON, with 200 if the store is
      healthy or degraded, and 503 if it is unhealthy.
    - ``/health/live``: 200 while the process answers. It asks no server.
    - ``/health/ready``: 200 if PostgreSQL answers and no migration is pending, otherwise 503.
    - ``/metrics``: the metrics of the pool's `PrometheusHook`, in multiprocess mode those of all
      processes; 404 if the pool has none.

    Errors name servers, users and schemas, so the log has them, and the answers do not.

    Example, in a Flask application::

        from werkzeug.middleware.dispatcher import DispatcherMiddleware

        app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/storage": create_app(pool)})

    Args:
        pool: the pool. Without one, the application has a pool of its own, of the environment:
            ``gunicorn 'observatory_storage.health:create_app()'``.
        timeout_secs: a server that has not answered after so many seconds counts as failed.
        details: whether ``/health`` answers the whole report, and ``/health/ready`` the revision
            and the error, instead of the log. Only people who run the store should see them.

    Raises:
        ConfigError: there is no pool, and a setting is missing or invalid.
    """
    source = _own_pool() if pool is None else pool

    def health(_: str) -> Answer:
        report = source.health_check(timeout_secs)
        ok = report.status != "unhealthy"
        if details:
            return Answer.json(report.to_dict(json=True), ok=ok)
        _log_error("PostgreSQL", report.postgres)
        _log_error("Redis", report.redis)
        return Answer.json({"status": report.status}, ok=ok)

    def live(_: str) -> Answer:
        return Answer.json({"alive": True}, ok=True)

    def ready(_: str) -> Answer:
        schema = check_schema(source.engine, source.schema, timeout_secs)
        content: dict[str, Any] = {"ready": schema.ok}
        if details:
            content |= {"revision": schema.version, "error": schema.error}
        else:
            _log_error("the store", schema)
        return Answer.json(content, ok=schema.ok)

    def metrics(accept: str) -> Answer:
        for hook in source.hooks.registered:
            exposition = getattr(hook, "exposition", None)
            if exposition is not None:
                body, content_type = exposition(accept)
                return Answer(HTTPStatus.OK, body, content_type)
        return Answer(HTTPStatus.NOT_FOUND, b"no metrics: the pool has no PrometheusHook\n")

    return HealthApp(dict(zip(PATHS, (health, live, ready, metrics), strict=True)))


def _log_error(name: str, component: ComponentHealth | None) -> None:
    if component is not None and not component.ok:
        logger.warning("%s failed its health check: %s", name, component.error)


def _own_pool() -> HealthSource:
    # By name, since these modules import this one.
    pools, hooks = map(import_module, ("observatory_storage.pool", "observatory_storage.hooks"))
    pool: Any = pools.StoragePool.from_env(connect=False)
    try:
        pool.add_hook(hooks.PrometheusHook())
    except ConfigError as error:
        logger.info("no metrics: %s", error)
    own: HealthSource = pool
    return own
