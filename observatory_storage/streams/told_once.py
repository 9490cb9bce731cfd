"""What has been told already, by this process or, if there is Redis, by any."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from observatory_storage.circuit_breaker import CircuitBreaker
from observatory_storage.streams.stream_client import stream_client
from observatory_storage.streams.stream_opening import StreamStore
from observatory_storage.streams.streamed_signals import key_prefix

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["ToldOnce"]

_log = logging.getLogger(__name__)
_MOST: Final = 100_000


class ToldOnce:
    """Remembers keys for a time, in this process and in Redis.

    Without Redis, or while it does not answer, each process remembers its own. Only one thread may
    use it.
    """

    def __init__(self, store: StreamStore) -> None:
        self._until: dict[str, float] = {}
        self._prefix = f"{key_prefix(store.engine, store.schema)}:passed:"
        config = store.config.redis
        self._client: Redis | None = None if config.url is None else stream_client(config)
        self._breaker = CircuitBreaker(failures=1)

    def is_first(self, key: str, lasting: timedelta) -> bool:
        """Whether nobody has asked for the key within this time."""
        now, seconds = time.monotonic(), lasting.total_seconds()
        until = self._until.pop(key, None)
        if until is not None and until > now:
            self._until[key] = until
            return False
        if len(self._until) >= _MOST:
            del self._until[next(iter(self._until))]
        self._until[key] = now + seconds
        return self._is_first_in_redis(key, max(1, int(seconds * 1000)))

    def _is_first_in_redis(self, key: str, milliseconds: int) -> bool:
        if self._client is None or not self._breaker.allows_call():
            return True
        from redis import RedisError

        name = self._prefix + blake2b(key.encode(), digest_size=16).hexdigest()
        try:
            was_set = self._client.set(name, b"1", nx=True, px=milliseconds)
        except RedisError as error:
            _log.debug("other processes may tell the same: %s", error)
            self._breaker.failed()
            return True
        self._breaker.succeeded()
        return bool(was_set)
