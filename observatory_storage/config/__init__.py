"""Configuration: `StorageConfig` and its sections."""

from observatory_storage.config.fields import Setting, settings_of
from observatory_storage.config.sections import (
    PoolConfig,
    PostgresConfig,
    RedisConfig,
    RetryConfig,
    SslMode,
)
from observatory_storage.config.storage import StorageConfig

__all__ = [
    "PoolConfig",
    "PostgresConfig",
    "RedisConfig",
    "RetryConfig",
    "Setting",
    "SslMode",
    "StorageConfig",
    "settings_of",
]
