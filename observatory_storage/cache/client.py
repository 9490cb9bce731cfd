"""Asks Redis within a short time, or not at all."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final

from observatory_storage.circuit_breaker import CircuitBreaker
from observatory_storage.processes import PerProcess

if TYPE_CHECKING:
    from redis import ConnectionPool

__all__ = ["CacheClient", "NotAsked", "Refused", "Unavailable"]

_log = logging.getLogger(__name__)
_RUN_ID: Final = b"run_id:"
Command = tuple[Any, ...]


class Unavailable(Exception):
    """Redis did not answer in time, or is not asked because it did not before."""


class NotAsked(Unavailable):
    """Nothing was sent, because Redis did not answer before."""


class Refused(Exception):
    """Redis answered, and refused: its memory is full, for example."""


class _Connections:
    """The connections of one process, its breaker, and what its server has told when connecting.

    Attributes:
        server: the id of the server's run, which changes when it is started again.
        clock: the seconds by which the server's clock is ahead of `time.monotonic`.
        is_closed: whether no connection is kept after its use.
    """

    def __init__(self, url: str, timeout_secs: float, longest_pause_secs: float) -> None:
        # Imported only if the cache is used.
        from redis import ConnectionPool, Redis
        from redis.backoff import NoBackoff
        from redis.connection import parse_url
        from redis.retry import Retry

        self.breaker = CircuitBreaker(max_pause_secs=longest_pause_secs)
        self.server: bytes | None = None
        self.clock = 0.0
        self.is_closed = False
        # Each thread uses one connection at a time, so their number needs no limit.
        # Ours take precedence over what the query of the URL says, unlike in `from_url`. The pool
        # must know them from the beginning: it prepares its connections for the protocol.
        options: dict[str, Any] = {
            **parse_url(url),  # type: ignore[no-untyped-call]  # redis-py has no types for it
            "socket_timeout": timeout_secs,
            "socket_connect_timeout": timeout_secs,
            "retry": Retry(NoBackoff(), 0),
            "retry_on_timeout": False,
            "protocol": 2,
            "decode_responses": False,
            "redis_connect_func": self._on_connect,
        }
        self.pool: ConnectionPool = ConnectionPool(**options)
        self.redis: Any = Redis(connection_pool=self.pool)

    def _on_connect(self, connection: Any) -> None:
        from redis import RedisError, ResponseError

        try:
            self._greet(connection)
        except ResponseError as error:  # no such database, or an access list forbids `TIME`
            # No command of ours was refused: no connection can be used.
            raise RedisError(f"the server refuses connections: {error}") from error

    def _greet(self, connection: Any) -> None:
        from redis import ResponseError

        connection.on_connect()
        connection.send_command("INFO", "server")
        try:
            told: bytes = connection.read_response(disable_decoding=True)
        except ResponseError:  # an access list forbids it
            told = b""
        connection.send_command("TIME")
        seconds, micros = connection.read_response(disable_decoding=True)
        self.clock = int(seconds) + int(micros) / 1e6 - time.monotonic()
        self.server = told.partition(_RUN_ID)[2][:40]


class CacheClient:
    """A client with connections of its own, which never retries.

    After a fork, the child makes connections of its own.

    Args:
        url: the URL of the server.
        timeout_secs: how long connecting, and each answer, may take.
        longest_pause_secs: how long the server is not asked for, at most, after it has failed.
    """

    def __init__(self, url: str, timeout_secs: float, longest_pause_secs: float = 15.0) -> None:
        self._timeout_secs = timeout_secs
        self._process = PerProcess(lambda: _Connections(url, timeout_secs, longest_pause_secs))

    @property
    def breaker(self) -> CircuitBreaker:
        return self._process.get().breaker

    def server(self) -> bytes:
        """The id of the run of the server.

        It is a part of all keys. So a server that is started again with values that it saved some
        time ago, or a replica that takes its place, does not give these values any more.

        Raises:
            Unavailable, Refused: as `run` does.
        """
        connections = self._process.get()
        if connections.server is None:
            self.run([("PING",)])
        return connections.server or b""

    def now(self) -> float:
        """The time by the clock of the server, once it has been asked for something."""
        return time.monotonic() + self._process.get().clock

    def run(self, commands: list[Command]) -> list[Any]:
        """Run commands at once, in one transaction of Redis if there are several.

        Raises:
            Unavailable: there is no answer within the time, or no connection.
            NotAsked: it is one of these; the breaker is open.
            Refused: the server refused a command.
        """
        from redis import ResponseError

        connections = self._process.get()
        breaker, server = connections.breaker, connections.server
        if not breaker.allows_call():
            raise NotAsked("it has failed, and is not asked for a while")
        started = time.monotonic()
        try:
            if len(commands) == 1:
                replies = [connections.redis.execute_command(*commands[0])]
            else:
                with connections.redis.pipeline(transaction=True) as pipeline:
                    for command in commands:
                        pipeline.execute_command(*command)
                    replies = pipeline.execute()
        except ResponseError as error:
            breaker.succeeded()
            raise Refused(str(error)) from error
        except Exception as error:  # also of a host name that cannot be encoded
            was_open = breaker.is_open
            breaker.failed()
            if breaker.is_open and not was_open:
                _log.warning("Redis failed, and is not asked for a while: %s", error)
            raise Unavailable(str(error)) from error
        finally:
            if connections.is_closed:
                connections.pool.disconnect(inuse_connections=False)
        if time.monotonic() - started > 2 * self._timeout_secs:
            breaker.failed()
        else:
            breaker.succeeded()
        if server is not None and connections.server != server:
            raise Unavailable("the server was started again")
        return replies

    def unlink(self, pattern: bytes, *, besides: bytes) -> None:
        """Remove the keys that match a pattern, but for those that end in `besides`.

        Raises:
            Unavailable, Refused: as `run` does.
        """
        cursor = b"0"
        while True:
            ((cursor, keys),) = self.run([("SCAN", cursor, "MATCH", pattern, "COUNT", 1_000)])
            doomed = [key for key in keys if not key.endswith(besides)]
            if doomed:
                self.run([("UNLINK", *doomed)])
            if int(cursor) == 0:
                return

    def close(self) -> None:
        """Close the connections of this process: those in use as soon as they are not any more."""
        connections = self._process.get()
        connections.is_closed = True
        connections.pool.disconnect(inuse_connections=False)
