"""Converts numbers of data points that a column or jsonb cannot represent, with notes.

A double column represents every finite double. jsonb represents neither NaN nor the infinities,
which are stored by name, nor negative zero. The field tells a reader that a double is meant, so
only negative zero needs a note.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from observatory_storage.otlp import protojson

__all__ = [
    "count_of",
    "double_of",
    "json_double",
    "json_double_of",
    "keep_double",
    "take_count",
    "take_double",
]

NEGATIVE_ZERO = "-0.0"


def take_double(
    value: float | str | None,
    column: str,
    row: dict[str, Any],
    otlp: dict[str, Any],
    field: str | None = None,
) -> None:
    """Store an optional double in its column, or by name in ``otlp`` if it is not finite."""
    if value is None:
        return
    number = protojson.double(value, field or column)
    if math.isfinite(number):
        row[column] = number
    else:
        otlp[column] = protojson.double_json(number)


def keep_double(
    value: float | str | None, column: str, row: dict[str, Any], otlp: dict[str, Any]
) -> None:
    """Store an optional double by its text in ``otlp``, and not in its column."""
    if value is not None:
        otlp[column] = str(protojson.double_json(protojson.double(value, column)))


def double_of(row: Mapping[str, Any], column: str) -> float | str | None:
    """The inverse of `take_double` and `keep_double`: the double of OTLP/JSON, or None."""
    value = row[column]
    if value is not None:
        return protojson.double_json(value)
    text = (row["otlp"] or {}).get(column)
    return None if text is None else protojson.double_json(protojson.double(text, column))


def take_count(count: int, row: dict[str, Any], column: str, otlp: dict[str, Any]) -> None:
    """Store an unsigned 64-bit count in its column, or in ``otlp`` if it exceeds a bigint."""
    if count <= protojson.MAX_INT64:
        row[column] = count
    else:
        otlp[column] = count


def count_of(row: Mapping[str, Any], column: str) -> str:
    """The inverse of `take_count`."""
    count = row[column]
    return str((row["otlp"] or {}).get(column, 0) if count is None else count)


def json_double(value: Any, field: str) -> tuple[float | str, str | None]:
    """A double in jsonb, and a note if jsonb loses its sign."""
    number = protojson.double(value, field)
    if number == 0 and math.copysign(1.0, number) < 0:
        return number, NEGATIVE_ZERO
    return protojson.double_json(number), None


def json_double_of(plain: Any, note: Any = None) -> float | str:
    """The inverse of `json_double`: the double in OTLP/JSON."""
    if note == NEGATIVE_ZERO and plain == 0:
        return -0.0
    return protojson.double_json(protojson.double(plain, "value"))
