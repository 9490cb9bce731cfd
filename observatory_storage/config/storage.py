"""`StorageConfig`: the sections together, and the ways to fill them."""

from __future__ import annotations

import os
from contextvars import ContextVar
from typing import Annotated, Self

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from observatory_storage.config.base import Checked
from observatory_storage.config.fields import Env
from observatory_storage.config.problems import Loaded
from observatory_storage.config.sections import (
    PoolConfig,
    PostgresConfig,
    RedisConfig,
    RetryConfig,
)
from observatory_storage.config.sources import DotEnvSource, FileSource, Source, VariablesSource

# The sources that `from_env` and `from_file` ask for; nothing is read without them.
_SOURCES: ContextVar[tuple[Source, ...]] = ContextVar("_SOURCES", default=())


class StorageConfig(Checked, BaseSettings):
    """Everything that can be set. Built in Python it reads nothing from outside.

    Raises:
        ConfigError: with every problem found; secrets are not in it.
    """

    # For the one source of pydantic's that is used, the reader of `.env`.
    model_config = SettingsConfigDict(case_sensitive=True, env_file_encoding="utf-8-sig")

    postgres: Annotated[PostgresConfig, Env("DATABASE_URL")] = Field(
        default_factory=PostgresConfig,
        description="postgresql://user:password@host:5432/database; it beats the DB_ variables.",
    )
    redis: RedisConfig = Field(default_factory=RedisConfig)
    pool: PoolConfig = Field(default_factory=PoolConfig)
    retry: RetryConfig = Field(default_factory=RetryConfig)

    @classmethod
    def from_env(cls) -> Self:
        """From the environment, then `.env` in the current directory, then the defaults.

        Raises:
            ConfigError: naming each variable that is wrong.
        """
        return cls._from(VariablesSource(cls), DotEnvSource(cls))

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Self:
        """From a file, where the environment and `.env` do not say otherwise.

        Args:
            path: a file whose name ends in .yaml, .yml, .toml or .json.

        Raises:
            ConfigError: naming each variable and each key of the file that is wrong.
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
        """Arguments, and whatever `from_env` or `from_file` reads."""
        # pydantic's own sources know neither our names of variables nor where a value came from.
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
