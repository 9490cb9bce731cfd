"""Health checks of PostgreSQL and Redis, statistics of a pool, and both over HTTP."""

from __future__ import annotations

import logging
import threading
import weakref
from dataclasses import dataclass
from http import HTTPStatus
from importlib import import_module
from typing import Any, Final, Protocol
from wsgiref.types import WSGIApplication

import sqlalchemy as sa
from sqlalchemy.pool import QueuePool

from observatory_storage.bounded_pool import BoundedPool
from observatory_storage.errors import ConfigError
from observatory_storage.health_app import PATHS, Answer, HealthApp
from observatory_storage.health_checks import (
    ComponentHealth,
    HealthReport,
    check_health,
    check_redis,
    check_schema,
)
from observatory_storage.operations import Hooks
from observatory_storage.serialization import Result

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
# What has failed its last check, by pool: applications may make a new `HealthApp` for each request.
_failing: Final[weakref.WeakKeyDictionary[object, set[str]]] = weakref.WeakKeyDictionary()
_lock: Final = threading.Lock()


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
        read: the connections to the read server, which have limits of their own; None if read-only
            units of work have no server of their own.
    """

    size: int
    idle: int
    active: int
    max: int | None
    min: int
    utilization: float
    near_capacity: bool
    read: PoolStats | None = None


def pool_stats(engine: sa.Engine, minimum: int, read: PoolStats | None = None) -> PoolStats:
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
        read=read,
    )


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

    Errors name servers, users and schemas, so the log has them, and the answers do not. The first
    failure of a server is logged, and its recovery, but not each probe.

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
        _log_change(source, "PostgreSQL", report.postgres)
        _log_change(source, "Redis", report.redis)
        _log_change(source, "the read server", report.read)
        return Answer.json({"status": report.status}, ok=ok)

    def live(_: str) -> Answer:
        return Answer.json({"alive": True}, ok=True)

    def ready(_: str) -> Answer:
        schema = check_schema(source.engine, source.schema, timeout_secs)
        content: dict[str, Any] = {"ready": schema.ok}
        if details:
            content |= {"revision": schema.version, "error": schema.error}
        else:
            _log_change(source, "the store", schema)
        return Answer.json(content, ok=schema.ok)

    def metrics(accept: str) -> Answer:
        for hook in source.hooks.registered:
            exposition = getattr(hook, "exposition", None)
            if exposition is not None:
                body, content_type = exposition(accept)
                return Answer(HTTPStatus.OK, body, content_type)
        return Answer(HTTPStatus.NOT_FOUND, b"no metrics: the pool has no PrometheusHook\n")

    return HealthApp(dict(zip(PATHS, (health, live, ready, metrics), strict=True)))


def _log_change(source: HealthSource, name: str, component: ComponentHealth | None) -> None:
    """Log the first of several failures, and the recovery: probes come every few seconds."""
    if component is None:
        return
    with _lock:
        failing = _failing.setdefault(source, set())
        if component.ok != (name in failing):
            return
        failing ^= {name}
    if component.ok:
        logger.info("%s passes its health check again", name)
    else:
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
