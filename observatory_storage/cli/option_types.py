"""The types of values on the command line: times, durations, levels, attributes."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import click

__all__ = [
    "attribute",
    "attributes_of",
    "bucket_size",
    "duration",
    "microseconds",
    "severity",
    "time",
]

Value = str | int | float | bool | list[Any]

_UNITS = {
    "us": timedelta(microseconds=1),
    "µs": timedelta(microseconds=1),
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(us|µs|ms|[smhdw])")


def duration(value: str) -> timedelta:
    """A duration such as ``250ms``, ``1.5s`` or ``7d``."""
    found = _duration(value)
    if found is None:
        raise click.BadParameter(f"{value!r} is not a duration such as 250ms, 1.5s, 2h or 7d")
    return found


def bucket_size(value: str) -> timedelta | str:
    """The size of a bucket of time: a `duration`, or a unit of the calendar."""
    return value if value.isalpha() else duration(value)


def microseconds(value: str) -> int:
    """A `duration` in microseconds."""
    return duration(value) // timedelta(microseconds=1)


def time(value: str) -> datetime:
    """A time in ISO 8601, UTC where it names no zone; or a duration before now."""
    ago = _duration(value)
    try:
        moment = datetime.now(UTC) - ago if ago is not None else datetime.fromisoformat(value)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{value!r} is neither a time such as 2026-07-01T12:00Z nor one ago such as 2h or 7d"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def severity(value: str) -> int | str:
    """A severity number, or the name of a level."""
    return int(value) if value.isdecimal() else value.upper()


def attribute(value: str) -> tuple[str, Value]:
    """A pair of the form ``key=value``."""
    key, separator, text = value.partition("=")
    if not key or not separator:
        raise click.BadParameter(f"{value!r} is not of the form key=value")
    return key, _value(text)


def attributes_of(
    context: click.Context, option: click.Parameter, pairs: tuple[tuple[str, Value], ...]
) -> dict[str, Value] | None:
    """The attributes of a repeated option; None where there is none.

    Raises:
        click.BadParameter: a key has two values, which no attribute has.
    """
    found: dict[str, Value] = {}
    for key, value in pairs:
        if key in found:
            raise click.BadParameter(f"{key} is given twice", context, option)
        found[key] = value
    return found or None


def _duration(text: str) -> timedelta | None:
    match = _DURATION.fullmatch(text.strip())
    return float(match[1]) * _UNITS[match[2]] if match else None


def _value(text: str) -> Value:
    """A number, true or false, a list, or text in quotes, as in JSON; anything else is text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, str | int | float | bool | list) else text
