"""Small sections of the configuration: their settings, defaults and rules."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator

from observatory_storage.config.config_model import ConfigModel
from observatory_storage.config.field_types import (
    Aliases,
    Fraction,
    Integer,
    RedisUrl,
)
from observatory_storage.config.fields import Env
from observatory_storage.config.problems import RuleError

_INT_MAX = 2**31 - 1  # PostgreSQL's and libpq's integers have 32 bits.


class RedisConfig(ConfigModel):
    """The connection to Redis or Valkey. Without a URL, Redis is not used.

    Raises:
        ConfigError: a value is invalid. It lists all problems.
    """

    section = ("redis",)

    url: Annotated[RedisUrl | None, Env("REDIS_URL")] = Field(
        default=None,
        description="redis://, rediss://, unix:// or valkey:// URL; without one Redis is off.",
    )
    pool_size: Annotated[Integer, Env("REDIS_POOL_SIZE")] = Field(
        default=10, ge=1, le=_INT_MAX, description="Maximum number of connections to Redis."
    )
    timeout_secs: Annotated[Fraction, Env("REDIS_TIMEOUT_SECS")] = Field(
        default=5.0, gt=0, description="Seconds to wait for Redis to connect or to answer."
    )


def _default_minimum(validated: dict[str, Any]) -> int:
    # Lowering the maximum should not require lowering the minimum too.
    maximum: int = validated.get("max_connections", 5)
    return min(5, maximum)


class PoolConfig(ConfigModel):
    """The limits of the pool of connections to PostgreSQL. Times are in seconds.

    Raises:
        ConfigError: a value is invalid. It lists all problems.
    """

    section = ("pool",)

    max_connections: Annotated[Integer, Env("DB_POOL_MAX_CONNECTIONS", "DB_MAX_CONNECTIONS")] = (
        Field(
            default=50,
            ge=1,
            le=_INT_MAX,
            description="Maximum number of connections, a hard limit.",
        )
    )
    min_connections: Annotated[Integer, Env("DB_POOL_MIN_CONNECTIONS", "DB_MIN_CONNECTIONS")] = (
        Field(
            default_factory=_default_minimum,
            ge=0,
            le=_INT_MAX,
            description="Connections opened at the start (by default not more than the maximum).",
        )
    )
    acquire_timeout_secs: Annotated[Fraction, Env("DB_POOL_ACQUIRE_TIMEOUT")] = Field(
        default=30.0, gt=0, description="Seconds to wait for a connection when all are in use."
    )
    connect_timeout_secs: Annotated[Integer, Env("DB_POOL_CONNECT_TIMEOUT")] = Field(
        default=10, ge=1, le=_INT_MAX, description="Seconds to wait for each host to connect."
    )
    idle_timeout_secs: Annotated[Fraction, Env("DB_POOL_IDLE_TIMEOUT")] = Field(
        default=300.0, gt=0, description="Seconds after which an idle connection is replaced."
    )
    max_lifetime_secs: Annotated[Fraction, Env("DB_POOL_MAX_LIFETIME")] = Field(
        default=1800.0, gt=0, description="Seconds after which any connection is replaced."
    )

    @field_validator("min_connections")
    @classmethod
    def _not_above_maximum(cls, value: int, info: ValidationInfo) -> int:
        maximum = info.data.get("max_connections", math.inf)
        if value > maximum:
            raise RuleError(f"must not be above max_connections, {maximum}", "max_connections")
        return value


class RetryConfig(ConfigModel):
    """The number of attempts and the delays between them, in milliseconds.

    They apply when a connection cannot be made, and when a writer meets a transient error.

    Raises:
        ConfigError: a value is invalid. It lists all problems.
    """

    section = ("retry",)

    max_attempts: Annotated[Integer, Env("DB_RETRY_MAX_ATTEMPTS")] = Field(
        default=3, ge=1, le=_INT_MAX, description="Maximum number of attempts; 1: no retries."
    )
    initial_delay_ms: Annotated[Integer, Env("DB_RETRY_INITIAL_DELAY_MS")] = Field(
        default=100, ge=1, le=_INT_MAX, description="Milliseconds before the second attempt."
    )
    max_delay_ms: Annotated[Integer, Env("DB_RETRY_MAX_DELAY_MS")] = Field(
        default=5000, ge=1, le=_INT_MAX, description="Maximum milliseconds between two attempts."
    )
    backoff_multiplier: Annotated[Fraction, Env("DB_RETRY_BACKOFF_MULTIPLIER")] = Field(
        default=2.0, gt=1, description="Factor by which the delay grows with each attempt."
    )

    @field_validator("max_delay_ms")
    @classmethod
    def _not_below_initial(cls, value: int, info: ValidationInfo) -> int:
        initial = info.data.get("initial_delay_ms", 0)
        if value < initial:
            raise RuleError(f"must not be below initial_delay_ms, {initial}", "initial_delay_ms")
        return value


class LlmConfig(ConfigModel):
    """How LLM columns of spans are read from attributes.

    The names apply to every pool of the process. Those of the pool that was created last count.

    Raises:
        ConfigError: a value is invalid. It lists all problems.
    """

    section = ("llm",)

    aliases: Annotated[Aliases, Env("LLM_ALIASES")] = Field(
        default_factory=dict,
        description="Your own attributes for LLM columns, read before all others, as JSON.",
    )
