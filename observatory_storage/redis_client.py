"""The Redis client of a pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from observatory_storage.config import RedisConfig, RetryConfig

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["redis_client"]


def redis_client(config: RedisConfig, retry: RetryConfig) -> Redis | None:
    """The client of the configured Redis; None if there is none. It connects at first use."""
    if config.url is None:
        return None
    # Imported only if Redis is configured, since most applications do not use it.
    from redis import BlockingConnectionPool, Redis
    from redis.backoff import ExponentialWithJitterBackoff
    from redis.retry import Retry

    url = config.url.get_secret_value()
    options: dict[str, Any] = {
        "max_connections": config.pool_size,
        "timeout": config.timeout_secs,
        "socket_timeout": config.timeout_secs,
        "socket_connect_timeout": config.timeout_secs,
        "retry": Retry(
            ExponentialWithJitterBackoff(
                base=retry.initial_delay_ms / 1000, cap=retry.max_delay_ms / 1000
            ),
            retry.max_attempts - 1,
        ),
    }
    connections = BlockingConnectionPool.from_url(url, **options)
    return Redis.from_pool(connections)
