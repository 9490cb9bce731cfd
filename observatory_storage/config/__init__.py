"""Configuration: `StorageConfig` and its sections."""

from observatory_storage.config.cache_settings import CacheConfig
from observatory_storage.config.fields import Setting, settings_of
from observatory_storage.config.maintenance_settings import MaintenanceConfig
from observatory_storage.config.partition_settings import PartitionsConfig
from observatory_storage.config.payload_settings import PayloadMode, PayloadsConfig
from observatory_storage.config.postgres_settings import PostgresConfig, SslMode
from observatory_storage.config.pricing_settings import PricingConfig
from observatory_storage.config.retention_settings import RetentionConfig, RollupRetention
from observatory_storage.config.rule_settings import DropRule, RedactRule, RulesConfig
from observatory_storage.config.sampling_settings import SamplingConfig
from observatory_storage.config.sections import (
    LlmConfig,
    PoolConfig,
    RedisConfig,
    RetryConfig,
)
from observatory_storage.config.spool_settings import SpoolConfig
from observatory_storage.config.storage import StorageConfig
from observatory_storage.config.stream_settings import (
    STREAM_SIGNALS,
    StreamsConfig,
    StreamSignal,
)

__all__ = [
    "STREAM_SIGNALS",
    "CacheConfig",
    "DropRule",
    "LlmConfig",
    "MaintenanceConfig",
    "PartitionsConfig",
    "PayloadMode",
    "PayloadsConfig",
    "PoolConfig",
    "PostgresConfig",
    "PricingConfig",
    "RedactRule",
    "RedisConfig",
    "RetentionConfig",
    "RetryConfig",
    "RollupRetention",
    "RulesConfig",
    "SamplingConfig",
    "Setting",
    "SpoolConfig",
    "SslMode",
    "StorageConfig",
    "StreamSignal",
    "StreamsConfig",
    "settings_of",
]
