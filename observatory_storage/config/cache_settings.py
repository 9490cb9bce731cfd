"""The section `cache`: what is cached in Redis, and for how long."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final

from pydantic import Field

from observatory_storage.config.config_model import ConfigModel
from observatory_storage.config.durations import Duration
from observatory_storage.config.field_types import Integer, Name
from observatory_storage.config.fields import Env

_INT_MAX: Final = 2**31 - 1


class CacheConfig(ConfigModel):
    """What is cached in Redis, and for how long. Without ``redis.url``, nothing is cached.

    A time of ``0s`` switches a kind off. In files and variables, durations are text such as ``5m``.

    Raises:
        ConfigError: a value is invalid. It lists all problems.
    """

    section = ("cache",)

    enabled: Annotated[bool, Env("CACHE_ENABLED")] = Field(
        default=True, description="Whether reads are cached if Redis is configured."
    )
    traces_ttl: Annotated[Duration, Env("CACHE_TRACES_TTL")] = Field(
        default=timedelta(hours=1),
        description="How long the spans and events of a trace are cached; 0s: not at all.",
    )
    traces_recheck: Annotated[Duration, Env("CACHE_TRACES_RECHECK")] = Field(
        default=timedelta(seconds=5),
        description="How long a cached trace is not compared with its rows again, unless spans"
        " are written; 0s: each read compares.",
    )
    names_ttl: Annotated[Duration, Env("CACHE_NAMES_TTL")] = Field(
        default=timedelta(minutes=5),
        description="How long the names of services and operations are cached; 0s: not at all.",
    )
    statistics_ttl: Annotated[Duration, Env("CACHE_STATISTICS_TTL")] = Field(
        default=timedelta(minutes=1),
        description="How long statistics are cached; 0s: not at all.",
    )
    metrics_ttl: Annotated[Duration, Env("CACHE_METRICS_TTL")] = Field(
        default=timedelta(minutes=5),
        description="How long definitions of metrics are cached; 0s: not at all.",
    )
    timeout_ms: Annotated[Integer, Env("CACHE_TIMEOUT_MS")] = Field(
        default=20,
        ge=1,
        le=_INT_MAX,
        description="Milliseconds that a read waits for Redis.",
    )
    commit_timeout_ms: Annotated[Integer, Env("CACHE_COMMIT_TIMEOUT_MS")] = Field(
        default=500,
        ge=1,
        le=_INT_MAX,
        description="Milliseconds that a commit waits for Redis to take back cached values.",
    )
    max_value_bytes: Annotated[Integer, Env("CACHE_MAX_VALUE_BYTES")] = Field(
        default=1_048_576,
        ge=1,
        le=_INT_MAX,
        description="Bytes of the largest value that is cached, after compression.",
    )
    prefix: Annotated[Name, Env("CACHE_PREFIX")] = Field(
        default="observatory", description="What the keys in Redis begin with."
    )
