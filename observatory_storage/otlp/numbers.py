"""Numbers of data points that a column or jsonb cannot hold as they are, with notes of them.

A double column holds every finite double. jsonb holds no NaN, no infinity (their names stand
there instead) and no negative zero; readers here know from the field that a double is meant, so
that only the negative zero needs a note.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from observatory_storage.otlp import wire

__all__ = ["count_of", "double_of", "json_double", "json_double_of", "take_count", "take_double"]

NEGATIVE_ZERO = "-0.0"


def take_double(
    given: Mapping[str, Any], name: str, row: dict[str, Any], column: str, otlp: dict[str, Any]
) -> None:
    """Put an optional double into its column, or by its name into ``otlp`` if it is not finite."""
    value = given.get(name)
    if value is None:
        return
    number = wire.double(value, name)
    if math.isfinite(number):
        row[column] = number
    else:
        otlp[column] = wire.double_json(number)


def double_of(row: Mapping[str, Any], column: str) -> float | str | None:
    """The inverse of `take_double`: the double as OTLP/JSON has it; None where there is none."""
    value = row[column]
    if value is not None:
        return wire.double_json(value)
    named: float | str | None = (row["otlp"] or {}).get(column)
    return named


def take_count(
    given: Mapping[str, Any], name: str, row: dict[str, Any], column: str, otlp: dict[str, Any]
) -> None:
    """Put an unsigned 64-bit count into its column, or into ``otlp`` if bigint cannot hold it."""
    count = wire.uint64(given.get(name), name)
    if count <= wire.MAX_INT64:
        row[column] = count
    else:
        otlp[column] = count


def count_of(row: Mapping[str, Any], column: str) -> str:
    """The inverse of `take_count`."""
    count = row[column]
    return str((row["otlp"] or {}).get(column, 0) if count is None else count)


def json_double(value: Any, field: str) -> tuple[float | str, str | None]:
    """A double as jsonb takes it, and a note if jsonb loses its sign."""
    number = wire.double(value, field)
    if number == 0 and math.copysign(1.0, number) < 0:
        return number, NEGATIVE_ZERO
    return wire.double_json(number), None


def json_double_of(plain: Any, note: Any = None) -> float | str:
    """The inverse of `json_double`, as OTLP/JSON has it."""
    if note == NEGATIVE_ZERO and plain == 0:
        return -0.0
    return wire.double_json(wire.double(plain, "value"))
