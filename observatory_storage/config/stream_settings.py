"""The section `streams`: what writers publish to Redis Streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BeforeValidator, Field

from observatory_storage.config.config_model import ConfigModel
from observatory_storage.config.field_types import Integer
from observatory_storage.config.fields import Env
from observatory_storage.config.problems import RuleError

StreamSignal = Literal["spans", "traces", "logs", "data_points"]
Level = Literal["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"]
STREAM_SIGNALS: Final[tuple[StreamSignal, ...]] = get_args(StreamSignal)


def _signals(value: Any) -> Any:
    if isinstance(value, str):  # a variable
        value = [] if value.strip() in ("", "none") else value.split(",")
    if not isinstance(value, Sequence):
        raise RuleError("must be a list of signals, such as [spans, logs]")
    names = [each.strip() if isinstance(each, str) else each for each in value]
    for name in names:
        if name not in STREAM_SIGNALS:
            raise RuleError(f"must have signals out of {', '.join(STREAM_SIGNALS)}")
    return tuple(name for name in STREAM_SIGNALS if name in names)


def _level(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


class StreamsConfig(ConfigModel):
    """What writers publish to Redis after each commit, for `StoragePool.stream`.

    The signals alone may stand for the section, as ``streams: spans,logs`` does in a file.

    Raises:
        ConfigError: a value is invalid. It lists all problems.
    """

    section = ("streams",)
    main_key = "signals"

    signals: Annotated[
        tuple[StreamSignal, ...],
        BeforeValidator(_signals),
        Env("OBSERVATORY_STREAMS", "OBSERVATORY_STREAMS_SIGNALS"),
    ] = Field(
        default=(),
        description="What is published: spans, traces, logs, data_points, with commas between.",
    )
    payloads: Annotated[bool, Env("OBSERVATORY_STREAMS_PAYLOADS")] = Field(
        default=False,
        description="Whether bodies of logs and JSON, such as attributes, are published.",
    )
    min_severity: Annotated[
        Level | None, BeforeValidator(_level), Env("OBSERVATORY_STREAMS_MIN_SEVERITY")
    ] = Field(default=None, description="The lowest level of logs that is published; all if unset.")
    max_entries: Annotated[Integer, Env("OBSERVATORY_STREAMS_MAX_ENTRIES")] = Field(
        default=2_000,
        ge=1,
        le=2**31 - 1,
        description="Entries that each stream keeps, about; each has at most 100 rows.",
    )
    max_waiting_rows: Annotated[Integer, Env("OBSERVATORY_STREAMS_MAX_WAITING_ROWS")] = Field(
        default=50_000,
        ge=1,
        le=2**31 - 1,
        description="Rows of a process that wait for Redis. Further rows are not published.",
    )
