"""The types of values on the command line: times, durations, levels, attributes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar

import click

from observatory_storage.repositories.reading import text_values
from observatory_storage.repositories.reading.text_values import Value, severity
from observatory_storage.times import MICROSECOND

__all__ = [
    "attribute",
    "attributes_of",
    "bucket_size",
    "duration",
    "microseconds",
    "severity",
    "time",
]

T = TypeVar("T")


def duration(value: str) -> timedelta:
    """A duration such as ``250ms``, ``1.5s`` or ``7d``."""
    return _read(text_values.duration, value)


def bucket_size(value: str) -> timedelta | str:
    """The size of a bucket of time: a `duration`, or a unit of the calendar."""
    return value if value.isalpha() else duration(value)


def microseconds(value: str) -> int:
    """A `duration` in microseconds."""
    return duration(value) // MICROSECOND


def time(value: str) -> datetime:
    """A time in ISO 8601, UTC where it names no zone; or a duration before now."""
    return _read(text_values.moment, value)


def attribute(value: str) -> tuple[str, Value]:
    """A pair of the form ``key=value``."""
    key, separator, text = value.partition("=")
    if not key or not separator:
        raise click.BadParameter(f"{value!r} is not of the form key=value")
    return key, text_values.attribute(text)


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


def _read(read: Callable[[str], T], value: str) -> T:
    try:
        return read(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
