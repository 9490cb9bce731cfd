"""The section `retention`: how long rows are kept, and which are spared."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

from observatory_storage.config.config_model import ConfigModel
from observatory_storage.config.durations import Duration
from observatory_storage.config.field_types import Directory
from observatory_storage.config.fields import Env
from observatory_storage.config.problems import RuleError

_SIZE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([kMGTP]?)(i?)B", re.IGNORECASE | re.ASCII)
_PREFIXES: Final = " kMGTP"


def _bytes(value: Any) -> Any:
    """A number of bytes, which text has with a unit: ``100GB``, ``1.5 TiB``."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise RuleError("must be a size such as 100GB, or a number of bytes")
    if isinstance(value, str) and re.fullmatch(r"\d{1,18}", value.strip(), re.ASCII):
        value = int(value)
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise RuleError("must be a size such as 500MB, 100GB or 1.5TiB")
        power = _PREFIXES.lower().index(match[2].lower() or " ")
        value = round(float(match[1]) * (1024 if match[3] else 1000) ** power)
    if value < 1:
        raise RuleError("must be at least one byte")
    return value


def _bytes_or_none(value: Any) -> Any:
    return None if value is None else _bytes(value)


def _conditions(value: Any) -> Any:
    """One group of conditions, or several; a variable has them as JSON."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise RuleError(f"must be JSON: {error}") from None
    groups = [value] if isinstance(value, Mapping) else value
    if not isinstance(groups, (list, tuple)) or not all(isinstance(one, Mapping) for one in groups):
        raise RuleError("must be a group of conditions such as {status: error}, or a list of them")
    if not all(groups):
        raise RuleError("must have a condition in each group: an empty one would keep everything")
    return tuple(dict(one) for one in groups)


class RollupRetention(ConfigModel):
    """How long rollups are kept, by the width of their buckets.

    Raises:
        ConfigError: a value is invalid. It lists all problems.
    """

    section = ("retention", "rollups")

    minute: Annotated[Duration | None, Env("OBSERVATORY_RETENTION_ROLLUPS_MINUTE")] = Field(
        default=timedelta(days=8), description="How long rollups of a minute are kept."
    )
    hour: Annotated[Duration | None, Env("OBSERVATORY_RETENTION_ROLLUPS_HOUR")] = Field(
        default=timedelta(days=210), description="How long rollups of an hour are kept."
    )
    day: Annotated[Duration | None, Env("OBSERVATORY_RETENTION_ROLLUPS_DAY")] = Field(
        default=timedelta(days=1095), description="How long rollups of a day are kept."
    )


class RetentionConfig(ConfigModel):
    """How long rows are kept, and which traces are spared. By default everything is kept.

    Example::

        RetentionConfig(
            traces="90d",
            metrics="37d",
            logs="37d",
            keep=[{"status": "error", "environment": "production"}, {"min_cost_usd": 1}],
            archive="/var/lib/observatory/archive",
        )

    Raises:
        ConfigError: a value is invalid. It lists all problems.
    """

    section = ("retention",)

    traces: Annotated[Duration | None, Env("OBSERVATORY_RETENTION_TRACES")] = Field(
        default=None, description="How long traces are kept, such as 90d; by default forever."
    )
    metrics: Annotated[Duration | None, Env("OBSERVATORY_RETENTION_METRICS")] = Field(
        default=None, description="How long data points are kept; by default forever."
    )
    logs: Annotated[Duration | None, Env("OBSERVATORY_RETENTION_LOGS")] = Field(
        default=None, description="How long log records are kept; by default forever."
    )
    rollups: RollupRetention = Field(default_factory=RollupRetention)
    max_bytes: Annotated[
        int | None, BeforeValidator(_bytes_or_none), Env("OBSERVATORY_RETENTION_MAX_BYTES")
    ] = Field(
        default=None,
        description="Size of all tables, such as 100GB, above which the oldest partitions go.",
    )
    keep: Annotated[
        Sequence[Mapping[str, Any]],
        BeforeValidator(_conditions),
        Env("OBSERVATORY_RETENTION_KEEP"),
    ] = Field(
        default=(), description="Traces that retention spares: fields of TraceFilters, in groups."
    )
    archive: Annotated[Directory | None, Env("OBSERVATORY_RETENTION_ARCHIVE")] = Field(
        default=None, description="Directory that rows are written to before they are deleted."
    )
