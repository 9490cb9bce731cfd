"""Connections to Redis that give up soon: nobody must wait for a server that does not answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from observatory_storage.config import RedisConfig

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["BLOCK_SECS", "stream_client"]

BLOCK_SECS: Final = 1.0
"""How long a reader waits for entries in one call."""
_MAX_TIMEOUT_SECS: Final = 2.0


def stream_client(config: RedisConfig, *, blocks: bool = False) -> Redis:
    """A client without retries, which connects at first use.

    Args:
        config: the section of the configuration. It has a URL.
        blocks: whether calls wait for entries.
    """
    from redis import ConnectionPool, Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    assert config.url is not None
    timeout = min(config.timeout_secs, _MAX_TIMEOUT_SECS)
    options: dict[str, Any] = {
        "socket_connect_timeout": timeout,
        "socket_timeout": timeout + BLOCK_SECS if blocks else timeout,
        "retry": Retry(NoBackoff(), 0),
    }
    return Redis.from_pool(ConnectionPool.from_url(config.url.get_secret_value(), **options))
