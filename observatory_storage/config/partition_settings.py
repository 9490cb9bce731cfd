"""The section `partitions`: how wide partitions are, and when they are made, split and closed."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationInfo, field_validator

from observatory_storage.config.config_model import ConfigModel
from observatory_storage.config.durations import Duration
from observatory_storage.config.field_types import Integer
from observatory_storage.config.fields import Env
from observatory_storage.config.problems import RuleError

__all__ = ["PartitionsConfig", "Width"]

Width = Literal["hour", "day", "week", "month"]

_HOURS: Final[dict[Width, int]] = {"hour": 1, "day": 24, "week": 7 * 24, "month": 28 * 24}
_MAX_AHEAD: Final = 1000
_INT_MAX: Final = 2**31 - 1
# Text, as the documentation shows it.
_AHEAD: Final[Any] = "7d"
_INDEX_OPEN_AFTER: Final[Any] = "5m"
_CLOSE_AFTER: Final[Any] = "1h"
_WIDTHS: Final = "hour, day, week or month"


class PartitionsConfig(ConfigModel):
    """How wide the partitions of new ranges are, and when they are made, split and closed.

    In files and variables, durations are text such as ``36h``. A change of a width needs no
    rewrite: existing partitions stay as they are, and new ranges that would overlap one of them are
    narrower.

    Example::

        PartitionsConfig(traces="hour", ahead=timedelta(hours=36))

    Raises:
        ConfigError: a value is invalid. It lists all problems.
    """

    section = ("partitions",)

    traces: Annotated[Width, Env("OBSERVATORY_PARTITIONS_TRACES")] = Field(
        default="day", description=f"Width of partitions of spans and their events: {_WIDTHS}."
    )
    metrics: Annotated[Width, Env("OBSERVATORY_PARTITIONS_METRICS")] = Field(
        default="day", description=f"Width of partitions of data points: {_WIDTHS}."
    )
    logs: Annotated[Width, Env("OBSERVATORY_PARTITIONS_LOGS")] = Field(
        default="day", description=f"Width of partitions of log records: {_WIDTHS}."
    )
    ahead: Annotated[Duration, Env("OBSERVATORY_PARTITIONS_AHEAD")] = Field(
        default=_AHEAD, description="How far ahead maintenance makes partitions, such as 36h."
    )
    index_open_after: Annotated[Duration, Env("OBSERVATORY_PARTITIONS_INDEX_OPEN_AFTER")] = Field(
        default=_INDEX_OPEN_AFTER,
        description="How old rows of a partition that is not closed must be to be indexed.",
    )
    close_after: Annotated[Duration, Env("OBSERVATORY_PARTITIONS_CLOSE_AFTER")] = Field(
        default=_CLOSE_AFTER,
        description="How long a partition's time must be over before it is closed.",
    )
    split_rows: Annotated[Integer, Env("OBSERVATORY_PARTITIONS_SPLIT_ROWS")] = Field(
        default=100_000,
        ge=1,
        le=_INT_MAX,
        description="Rows that a partition wider than configured may hold before it is split.",
    )

    @field_validator("ahead")
    @classmethod
    def _makes_few_partitions(cls, value: timedelta, info: ValidationInfo) -> timedelta:
        for signal in ("traces", "metrics", "logs"):
            width = info.data.get(signal)
            if width is not None and value > timedelta(hours=_HOURS[width] * _MAX_AHEAD):
                raise RuleError(
                    f"must make at most {_MAX_AHEAD:,} partitions ahead, which are"
                    f" {_HOURS[width] * _MAX_AHEAD // 24} days of one {width} each",
                    signal,
                )
        return value

    def width_of(self, table_name: str) -> Width:
        """The width of new partitions of a table."""
        if table_name in ("logs", "log_frames"):
            return self.logs
        return self.metrics if table_name == "metric_data_points" else self.traces
