"""`StorageConfig`: all sections, and how they are read from the environment and files."""

from __future__ import annotations

import os
from contextvars import ContextVar
from typing import Annotated, Self

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from observatory_storage.config.cache_settings import CacheConfig
from observatory_storage.config.config_model import ConfigModel
from observatory_storage.config.fields import Env
from observatory_storage.config.maintenance_settings import MaintenanceConfig
from observatory_storage.config.partition_settings import PartitionsConfig
from observatory_storage.config.payload_settings import PayloadsConfig
from observatory_storage.config.postgres_settings import PostgresConfig
from observatory_storage.config.pricing_settings import PricingConfig
from observatory_storage.config.problems import Loaded
from observatory_storage.config.retention_settings import RetentionConfig
from observatory_storage.config.rule_settings import RulesConfig
from observatory_storage.config.sampling_settings import SamplingConfig
from observatory_storage.config.sections import (
    LlmConfig,
    PoolConfig,
    RedisConfig,
    RetryConfig,
)
from observatory_storage.config.sources import DotEnvSource, FileSource, Source, VariablesSource
from observatory_storage.config.spool_settings import SpoolConfig
from observatory_storage.config.stream_settings import StreamsConfig

# `from_env` and `from_file` set the sources that are read. By default nothing is read.
_SOURCES: ContextVar[tuple[Source, ...]] = ContextVar("_SOURCES", default=())


class StorageConfig(ConfigModel, BaseSettings):
    """The whole configuration, a section for each subject.

    The constructor reads neither the environment nor files; `from_env` and `from_file` do.

    Example::

        StorageConfig(
            postgres=PostgresConfig(host="db.internal", schema="telemetry"),
            pool=PoolConfig(max_connections=20),
        )

    Raises:
        ConfigError: a value is invalid. It lists all problems, and shows no secrets.
    """

    # These apply to the reader of `.env`, the only source of pydantic-settings that is used.
    model_config = SettingsConfigDict(case_sensitive=True, env_file_encoding="utf-8-sig")

    postgres: Annotated[PostgresConfig, Env("DATABASE_URL")] = Field(
        default_factory=PostgresConfig,
        description="postgresql://user:password@host:5432/database;"
        " takes precedence over DB_ variables.",
    )
    redis: RedisConfig = Field(default_factory=RedisConfig)
    cache: CacheConfig = Field(default_factory=CacheConfig)
    pool: PoolConfig = Field(default_factory=PoolConfig)
    retry: RetryConfig = Field(default_factory=RetryConfig)
    partitions: PartitionsConfig = Field(default_factory=PartitionsConfig)
    rules: RulesConfig = Field(default_factory=RulesConfig)
    llm: LlmConfig = Field(default_factory=LlmConfig)
    maintenance: MaintenanceConfig = Field(default_factory=MaintenanceConfig)
    retention: RetentionConfig = Field(default_factory=RetentionConfig)
    pricing: PricingConfig = Field(default_factory=PricingConfig)
    payloads: PayloadsConfig = Field(default_factory=PayloadsConfig)
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    spool: SpoolConfig = Field(default_factory=SpoolConfig)
    streams: StreamsConfig = Field(default_factory=StreamsConfig)

    @classmethod
    def from_env(cls) -> Self:
        """Read environment variables, then ``.env`` in the current directory, then the defaults.

        Raises:
            ConfigError: a variable is invalid. It names each of them.
        """
        return cls._from(VariablesSource(cls), DotEnvSource(cls))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Self:
        """Read a file. Environment variables and ``.env`` take precedence over it.

        Args:
            path: a file whose name ends in .yaml, .yml, .toml or .json.

        Raises:
            ConfigError: the file cannot be read, or a variable or a key is invalid. It names each
                of them.
        """
        return cls._from(VariablesSource(cls), DotEnvSource(cls), FileSource(cls, path))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The constructor's arguments, then the sources of `from_env` or `from_file`."""
        # The sources of pydantic-settings know neither our variables nor where a value came from.
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings, *_SOURCES.get())

    @classmethod
    def _from(cls, *sources: Source) -> Self:
        token = _SOURCES.set(sources)
        try:
            return cls()
        finally:
            _SOURCES.reset(token)

    @classmethod
    def _loaded(cls) -> Loaded | None:
        sources = _SOURCES.get()
        if not sources:
            return None
        loaded = Loaded()
        for source in reversed(sources):
            loaded.origins |= source.loaded.origins
            loaded.problems = source.loaded.problems + loaded.problems
        return loaded
