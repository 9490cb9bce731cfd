"""Checks of the arguments of `LlmSpan`. Each error names the field and the rule."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from observatory_storage.errors import ValidationError
from observatory_storage.llm.readers import (
    MAX_AMOUNT,
    MAX_INT64,
    MAX_TEXT_BYTES,
    read_amount,
    read_duration,
    read_text,
)
from observatory_storage.models import TraceEvent

__all__ = [
    "amount",
    "are_names",
    "attributes",
    "count",
    "events",
    "fits",
    "interval",
    "milliseconds",
    "name",
    "number",
    "text",
    "texts",
    "time",
]

_YEARS_RULE: Final = "must leave the start and the end within the years 1 to 9999 in UTC"
_MICROSECOND: Final = timedelta(microseconds=1)

_EVENT_KEYS: Final = frozenset({"name", "timestamp", "timestamp_ns", "attributes", "otlp"})


def fits(value: object) -> bool:
    """Whether an indexed text column can hold the value."""
    return read_text(value) is not None


def name(field: str, value: object) -> None:
    """Text that an indexed column can hold."""
    if value is not None and read_text(value) is None:
        rule = (
            f"must be text of 1 to {MAX_TEXT_BYTES} bytes of UTF-8, without NUL or lone surrogates"
        )
        raise ValidationError(field, value, rule)


def are_names(values: Sequence[object]) -> bool:
    """Whether `name` takes all of these values. False also where that takes a closer look."""
    texts = [value for value in values if isinstance(value, str)]
    together = "".join(texts)
    return (
        len(texts) + values.count(None) == len(values)
        and all(texts)
        and len(together) <= MAX_TEXT_BYTES
        and together.isascii()
        and '"' not in together
        and "\0" not in together
    )


def text(field: str, value: object) -> None:
    """Text of any length and content."""
    if value is not None and not isinstance(value, str):
        raise ValidationError(field, value, "must be text")


def texts(field: str, value: object) -> None:
    """A sequence of texts, not one text."""
    if value is None:
        return
    if isinstance(value, str) or not isinstance(value, (list, tuple, Sequence)):
        raise ValidationError(field, value, "must be a sequence of texts")
    for index, item in enumerate(value):
        if not isinstance(item, str):
            text(f"{field}[{index}]", item)


def count(field: str, value: object) -> None:
    """A count, which must be an integer. Digits in text are accepted only from exporters."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_INT64:
        raise ValidationError(field, value, "must be an integer from 0 to 2**63 - 1")


def amount(field: str, value: object) -> None:
    """US dollars."""
    if value is not None and read_amount(value) is None:
        rule = f"must be an amount of US dollars from 0 to below {MAX_AMOUNT}"
        raise ValidationError(field, value, rule)


def milliseconds(field: str, value: object) -> None:
    """A duration."""
    if value is not None and (isinstance(value, str) or read_duration(value) is None):
        raise ValidationError(field, value, "must be a finite number of milliseconds, 0 or more")


def number(field: str, value: object) -> None:
    """A finite number."""
    if value is None:
        return
    try:
        is_finite = not isinstance(value, bool) and math.isfinite(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):  # no number, or an integer beyond a double
        is_finite = False
    if not is_finite or not isinstance(value, (int, float)):
        raise ValidationError(field, value, "must be a finite number")


def time(field: str, value: object) -> None:
    """An aware datetime."""
    if value is None:
        return
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise ValidationError(field, value, "must be a datetime with a time zone")


def interval(
    start: datetime | None, end: datetime | None, duration_ms: float | None
) -> tuple[datetime, datetime | None]:
    """The start and the end, computed from the given ones of the three; see `LlmSpan`."""
    if start is None and end is not None and duration_ms is None:
        raise ValidationError(
            "start_time", None, "is required with end_time, unless duration_ms is given"
        )
    # Python subtracts times of one zone by their wall clocks, also across a change of the clock.
    start, end = _utc("start_time", start), _utc("end_time", end)
    if duration_ms is None:
        start = start or datetime.now(UTC)
    else:
        try:
            length = timedelta(milliseconds=duration_ms)
            start = start or (end or datetime.now(UTC)) - length
            computed = start + length
        except OverflowError:
            raise ValidationError("duration_ms", duration_ms, _YEARS_RULE) from None
        # The duration is rounded to whole microseconds; more than that is a contradiction.
        if end is not None and abs(end - computed) > _MICROSECOND:
            rule = "must be end_time - start_time: give two of the three"
            raise ValidationError("duration_ms", duration_ms, rule)
        end = end or computed
    if end is not None and end < start:
        raise ValidationError("end_time", end, f"must not be before start_time={start}")
    return start, end


def _utc(field: str, value: datetime | None) -> datetime | None:
    try:
        return value if value is None or value.tzinfo is UTC else value.astimezone(UTC)
    except OverflowError:
        raise ValidationError(field, value, _YEARS_RULE) from None


def attributes(field: str, value: object) -> None:
    """A mapping. Its keys and values become JSON when they are encoded."""
    if type(value) is not dict and not isinstance(value, Mapping):
        raise ValidationError(field, value, "must be a mapping")


def events(field: str, value: object) -> None:
    """`TraceEvent`s, or mappings with an event's own columns."""
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, (tuple, list, Sequence)):
        raise ValidationError(field, value, "must be a sequence of events")
    for index, item in enumerate(value):
        place = f"{field}[{index}]"
        if isinstance(item, TraceEvent):
            continue
        if not isinstance(item, Mapping):
            raise ValidationError(place, item, "must be a TraceEvent or a mapping")
        unknown = sorted(map(str, item.keys() - _EVENT_KEYS))
        if unknown:
            rule = f"is not one of {', '.join(sorted(_EVENT_KEYS))}"
            raise ValidationError(f"{place}.{unknown[0]}", item.get(unknown[0]), rule)
        if not item.get("name"):
            raise ValidationError(f"{place}.name", item.get("name"), "is required")
        name(f"{place}.name", item["name"])
        time(f"{place}.timestamp", item.get("timestamp"))
