"""Checks of query arguments. Each raises a `ValidationError` that names the field.

A check takes the field's name and the value, and returns the value as queries use it. None stays
None if the value is optional.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from observatory_storage import ids, jsonb
from observatory_storage.errors import ValidationError
from observatory_storage.models import Trace
from observatory_storage.repositories.reading import operators
from observatory_storage.repositories.reading.operators import Not, Operator

AttributeValue = str | int | float | bool | Sequence[Any]
AttributeFilter = AttributeValue | Operator
Number = int | float | Decimal
TraceId = str | UUID | Trace
TraceFilter = TraceId | Collection[TraceId] | Operator

DEFAULT_LIMIT: Final = 50
BATCH_SIZE: Final = 1000

# More rows than any client holds in memory. PostgreSQL itself would accept 2**63 - 1.
_MOST_ROWS: Final = 2**31 - 1
_INT64: Final = 2**63 - 1
_LONGEST_SEARCH: Final = 10_000
_DAYS: Final = 10_000 * 366

_MICROSECOND: Final = timedelta(microseconds=1)


def limit(field: str, value: object) -> int:
    """A number of rows, 1 to 2**31 - 1."""
    return integer(field, value, lowest=1, highest=_MOST_ROWS)


def text(field: str, value: object) -> str | None:
    """A text, repaired as the writers repair it, so that it equals the stored text."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValidationError(field, value, "must be text")
    return jsonb.clean_text(value)


def required_text(field: str, value: object) -> str:
    """A required text, repaired as the writers repair it."""
    given = text(field, value)
    if given is None:
        raise ValidationError(field, value, "is required")
    return given


def search(field: str, value: object) -> str | None:
    """The words of a full-text search."""
    words = text(field, value)
    if words is not None and not words.strip():
        raise ValidationError(field, value, "must not be blank")
    if words is not None and len(words) > _LONGEST_SEARCH:
        raise ValidationError(field, value, f"must have at most {_LONGEST_SEARCH} characters")
    return words


def substring(field: str, value: object) -> str | None:
    """A substring to search for."""
    given = text(field, value)
    if given is not None and not 0 < len(given) <= _LONGEST_SEARCH:
        raise ValidationError(field, value, f"must have 1 to {_LONGEST_SEARCH} characters")
    return given


def one_of(values: Collection[str]) -> Callable[[str, object], str | None]:
    """The check of a field that takes one of the values."""
    return lambda field, value: choice(field, value, values)


def choice(field: str, value: object, values: Collection[str]) -> str | None:
    """One of the listed values."""
    if value is None or (isinstance(value, str) and value in values):
        return value
    raise ValidationError(field, value, f"must be one of {', '.join(values)}")


def moment(field: str, value: object) -> datetime | None:
    """A point in time, in UTC."""
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise ValidationError(field, value, "must be a datetime")
    if value.tzinfo is None or value.utcoffset() is None:
        raise ValidationError(field, value, "must have a time zone")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValidationError(field, value, "must be within the years 1 to 9999 in UTC") from None


def times(start: object, end: object) -> tuple[datetime | None, datetime | None]:
    """The bounds of a half-open range of time."""
    first, last = moment("start_time", start), moment("end_time", end)
    in_order(first, last)
    return first, last


def in_order(start: datetime | None, end: datetime | None) -> None:
    """Refuse a range of time that ends before it starts. An empty range is allowed."""
    if start is not None and end is not None and end < start:
        raise ValidationError("end_time", end, f"must not be before start_time={start}")


def required_times(start: object, end: object) -> tuple[datetime, datetime]:
    """The bounds of a half-open range of time, both required."""
    first, last = times(start, end)
    if first is None:
        raise ValidationError("start_time", start, "is required")
    if last is None:
        raise ValidationError("end_time", end, "is required")
    return first, last


def number(field: str, value: object) -> Decimal | None:
    """A finite, non-negative number as a Decimal; a float is read from its shortest text."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise ValidationError(field, value, "must be a number")
    if not math.isfinite(value):
        raise ValidationError(field, value, "must be a finite number")
    if not 0 <= value <= _INT64:
        raise ValidationError(field, value, "must be from 0 to 2**63 - 1")
    return Decimal(float.__repr__(value) if isinstance(value, float) else value)


def duration_us(field: str, value: object) -> Decimal | None:
    """A duration in microseconds, given as a number of them or as a timedelta."""
    return number(field, value // _MICROSECOND if isinstance(value, timedelta) else value)


def count(field: str, value: object) -> int | None:
    """An integer from 0 to 2**63 - 1."""
    return None if value is None else integer(field, value, lowest=0, highest=_INT64)


def integer(field: str, value: object, *, lowest: int, highest: int) -> int:
    """An integer in a range."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValidationError(field, value, "must be an integer")
    if not lowest <= value <= highest:
        raise ValidationError(field, value, f"must be from {lowest} to {highest}")
    return int(value)


def trace_key(field: str, value: Any) -> UUID:
    """The id of a trace, given as text, as a UUID or as the `Trace`."""
    if isinstance(value, Trace):
        # The id of a row that a session inserted need not be the one computed from its trace id.
        value = vars(value).get("id") or value.trace_id
    return ids.trace_uuid(value, field)


def ordered(least_field: str, least: Any, greatest_field: str, greatest: Any) -> None:
    """Refuse a least value above the greatest, if both are given."""
    if least is not None and greatest is not None and greatest < least:
        raise ValidationError(greatest_field, greatest, f"must not be less than {least_field}")


def attributes(field: str, value: object) -> dict[str, AttributeFilter] | None:
    """Attribute keys, each with the value or operator that it must meet."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ValidationError(field, value, "must be a mapping")
    checked: dict[str, AttributeFilter] = {}
    for key, wanted in value.items():
        if not isinstance(key, str):
            raise ValidationError(field, key, "must have keys that are text")
        if not isinstance(wanted, Operator):
            found: Any = _attribute(field, key, wanted)
        elif isinstance(wanted, Not) and isinstance(wanted.value, (list, tuple)):
            raise ValidationError(field, wanted, f"must negate values, not a list, at {key!r}")
        else:
            found = operators.checked(_of_operator(key), field, wanted)
        checked[jsonb.clean_text(key)] = found
    return checked


def _of_operator(key: str) -> Callable[[str, object], object]:
    """The check of an operator's values: a JSON path compares no lists."""

    def check(field: str, value: object) -> object:
        if not isinstance(value, (str, int, float)):
            raise ValidationError(field, value, f"must have text, a number or a bool at {key!r}")
        return _attribute(field, key, value)

    return check


def _attribute(field: str, key: str, value: Any) -> AttributeValue:
    if isinstance(value, (list, tuple)):
        return [None if one is None else _attribute(field, key, one) for one in value]
    if isinstance(value, str):
        return jsonb.clean_text(value)  # as it was stored
    if not isinstance(value, (int, float)):
        rule = f"must have text, a number, a bool or a list of these at {key!r}"
        raise ValidationError(field, value, rule)
    if not _is_finite(value):
        raise ValidationError(field, value, f"must have a finite number at {key!r}")
    return value


def flag(field: str, value: object) -> bool | None:
    """True or False."""
    if value is None or isinstance(value, bool):
        return value
    raise ValidationError(field, value, "must be True or False")


def names(field: str, value: object) -> tuple[str, ...]:
    """A name or a sequence of names, each once."""
    if not isinstance(value, (str, Collection)):
        raise ValidationError(field, value, "must be a sequence of text")
    given = (value,) if isinstance(value, str) else tuple(value)
    if not all(isinstance(name, str) for name in given):
        raise ValidationError(field, value, "must be a sequence of text")
    if len(set(given)) != len(given):
        raise ValidationError(field, value, "must not name anything twice")
    return tuple(jsonb.clean_text(name) for name in given)


def bucket(field: str, value: object) -> timedelta:
    """The width of a bucket of time, given in seconds or as a timedelta."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise ValidationError(field, value, "must be a number of seconds")
    if not math.isfinite(value) or not 0 < value <= _DAYS * 86_400:
        raise ValidationError(field, value, "must be greater than 0, and 10,000 years at most")
    width = timedelta(seconds=float(value))
    if not width:
        raise ValidationError(field, value, "must be at least a microsecond")
    return width


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that no double holds, and no JSON document has
        return False
