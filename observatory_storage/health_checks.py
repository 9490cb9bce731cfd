"""Health checks of PostgreSQL and Redis."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Final, Literal

import sqlalchemy as sa

from observatory_storage.bounded_pool import acquire_within
from observatory_storage.engine import single_attempt
from observatory_storage.errors import MigrationError, translate, translated
from observatory_storage.replication_lag import LagMeter
from observatory_storage.serialization import Result
from observatory_storage.timed_calls import answers_within
from observatory_storage.wal_positions import WalState

if TYPE_CHECKING:
    from redis import Redis

__all__ = [
    "ComponentHealth",
    "HealthReport",
    "check_health",
    "check_redis",
    "check_schema",
]

_OF_POOL: Final = 0.8  # the part of the timeout for which the check waits for a connection
_OF_PRIMARY: Final = 0.5  # the part of the timeout after which the read server is asked in any case


@dataclass(frozen=True, slots=True)
class ComponentHealth(Result):
    """The result of the health check of one server.

    Attributes:
        ok: whether the server answered.
        latency_ms: the milliseconds that the check took, getting a connection included.
        version: the version of the server, such as ``"18.1"``; None if it did not answer.
        error: why the check failed; None if it did not.
        role: whether PostgreSQL takes writes ("primary") or replays those of another server
            ("standby"); None for Redis, and if it did not answer.
        lag_bytes: of the read server, the bytes of the log that the primary has written and it has
            not replayed; None if the primary did not answer, if the servers do not tell their
            positions, and for other servers.
        lag_secs: of the read server, for how many seconds it has been behind, at most; 0.0 if it
            has replayed everything, however long ago that was. The clocks of both servers are
            compared. None as for `lag_bytes`.
    """

    ok: bool
    latency_ms: float
    version: str | None = None
    error: str | None = None
    role: Literal["primary", "standby"] | None = None
    lag_bytes: int | None = None
    lag_secs: float | None = None


@dataclass(frozen=True, slots=True)
class HealthReport(Result):
    """The result of `StoragePool.health_check`.

    Attributes:
        status: ``"healthy"``; ``"degraded"`` if Redis or the read server is configured but does not
            answer; or ``"unhealthy"`` if PostgreSQL does not answer.
        postgres: the check of PostgreSQL.
        redis: the check of Redis; None if Redis is not configured.
        read: the check of the server that read-only units of work use; None if they have none of
            their own.
    """

    status: Literal["healthy", "degraded", "unhealthy"]
    postgres: ComponentHealth
    redis: ComponentHealth | None = None
    read: ComponentHealth | None = None


def check_health(
    engine: sa.Engine,
    redis: Redis | None,
    timeout: float | None = None,
    read_engine: sa.Engine | None = None,
    meter: LagMeter | None = None,
) -> HealthReport:
    """Ask all servers, once and without retries. Never raises.

    Args:
        engine: connects to the primary.
        redis: the client of Redis, if it is configured.
        timeout: seconds for all answers together; None for as long as the pool and the servers
            take.
        read_engine: connects to the read server, if there is one.
        meter: measures its lag.
    """
    # Less than the whole time, so that the pool's own error is reported if all connections are in
    # use.
    patience = None if timeout is None else timeout * _OF_POOL
    ask_by = None if timeout is None else time.monotonic() + timeout * _OF_PRIMARY
    # Without a read server nobody needs positions, which some managed servers refuse to tell.
    positions = read_engine is not None
    states: list[WalState] = []
    is_answered = threading.Event()

    def primary() -> ComponentHealth:
        try:
            return _check_server(lambda: _state(engine, patience, positions), states.append)
        finally:
            is_answered.set()

    def read_server(read_engine: sa.Engine) -> ComponentHealth:
        found: list[WalState] = []

        def connected() -> None:
            # It is asked after the primary, so that what that has written meanwhile is no lag.
            is_answered.wait(None if ask_by is None else max(0.0, ask_by - time.monotonic()))

        def ask() -> WalState:
            return _state(read_engine, patience, positions, connected)

        health = _check_server(ask, found.append)
        if not found:
            return health
        lag = (meter or LagMeter()).measure(states[0] if states else None, found[0])
        return replace(health, lag_bytes=lag.bytes, lag_secs=lag.secs)

    questions: dict[str, Callable[[], ComponentHealth]] = {"postgres": primary}
    if read_engine is not None:
        questions["read"] = lambda: read_server(read_engine)
    if redis is not None:
        questions["redis"] = lambda: check_redis(redis)
    answers = _answers(questions, timeout)
    postgres = answers.pop("postgres")
    status: Literal["healthy", "degraded", "unhealthy"] = "unhealthy"
    if postgres.ok:
        status = "healthy" if all(each.ok for each in answers.values()) else "degraded"
    return HealthReport(status, postgres, answers.get("redis"), answers.get("read"))


def _state(
    engine: sa.Engine,
    patience: float | None,
    positions: bool,
    connected: Callable[[], object] = lambda: None,
) -> WalState:
    """Ask a server what it is and how far, once and without retries.

    Args:
        engine: connects to it.
        patience: seconds to wait for a connection of the pool.
        positions: whether to ask how far it is.
        connected: is called once there is a connection, before the server is asked.

    Raises:
        StorageError: it did not answer.
    """
    with translated(), single_attempt(), acquire_within(patience), engine.connect() as connection:
        connected()
        return WalState.of_any(connection, positions=positions)


def _answers(
    questions: Mapping[str, Callable[[], ComponentHealth]], timeout: float | None
) -> dict[str, ComponentHealth]:
    """The answers by name. After the timeout a question counts as failed."""
    if timeout is None:
        return {name: ask() for name, ask in questions.items()}
    found = answers_within(questions, timeout)
    late = ComponentHealth(
        ok=False, latency_ms=timeout * 1000, error=f"no answer within {timeout:g} s"
    )
    return {name: found.get(name, late) for name in questions}


def check_schema(engine: sa.Engine, schema: str, timeout: float | None = None) -> ComponentHealth:
    """Ask PostgreSQL for the revision of the schema, once and without retries. Never raises.

    It is not ok if migrations are pending. A schema that a newer release has migrated is ok, since
    processes of the release before go on while they are replaced.

    Returns:
        The revision is its ``version``.
    """
    from observatory_storage import migrate  # as late as in `StoragePool.run_migrations`

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

    return _answers({"schema": lambda: _check(revision)}, timeout)["schema"]


@cache
def _known_revisions() -> tuple[str, ...]:
    """The revisions that this version of the package knows, in their order."""
    from observatory_storage import migrate

    return tuple(migrate.revisions())


def check_redis(redis: Redis) -> ComponentHealth:
    """Check Redis, once and without retries. Never raises."""
    return _check(lambda: _redis_version(redis))


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


def _check_server(
    ask: Callable[[], WalState], answered: Callable[[WalState], object]
) -> ComponentHealth:
    found: list[WalState] = []

    def version() -> str:
        found.append(ask())
        return found[0].version

    health = _check(version)
    if not found:
        return health
    answered(found[0])
    return replace(health, role="standby" if found[0].is_standby else "primary")
