"""What should be read back of a value that was given to a column, by the rules alone.

Nothing here is taken from the package: these are the rules of its documentation, said again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

__all__ = ["Reader", "Refused", "repairs"]

Reader = Callable[[Any], Any]
MOST_BYTES_OF_A_NAME: Final = 1024
_PAIR: Final = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_LONE: Final = re.compile("[\x00\ud800-\udfff]")


class Refused(Exception):
    """No column of this kind takes the value."""


class _Repairs:
    """How many values have been repaired, as far as they were looked at here."""

    count = 0


repairs: Final = _Repairs()


def text(value: Any) -> str:
    """PostgreSQL holds neither NUL nor half a pair of surrogates."""
    if not isinstance(value, str):
        raise Refused
    paired = _PAIR.sub(
        lambda pair: pair[0].encode("utf-16", "surrogatepass").decode("utf-16"), value
    )
    cleaned = _LONE.sub("\ufffd", paired)
    repairs.count += cleaned != value
    return cleaned


def name(value: Any) -> str:
    cleaned = text(value)
    if not cleaned or len(cleaned.encode()) > MOST_BYTES_OF_A_NAME:
        raise Refused
    return cleaned


def one_of(values: tuple[str, ...]) -> Reader:
    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in values:
            raise Refused
        return value

    return read


def integer(least: int, most: int) -> Reader:
    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise Refused
        return value

    return read


def double(value: Any) -> float:
    """A number of its own must be one: there is no text to make of it."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        raise Refused
    try:
        number = float(value)
    except (OverflowError, ValueError):
        raise Refused from None
    if not math.isfinite(number):
        raise Refused
    return number


def not_negative(value: Any) -> float:
    number = double(value)
    if number < 0:
        raise Refused
    return number


def cost(value: Any) -> Decimal:
    """Exactly what was written in decimal."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str)):
        raise Refused
    try:
        amount = Decimal(str(value))
    except ArithmeticError:
        raise Refused from None
    if not amount.is_finite() or amount < 0 or (amount and abs(amount.adjusted()) > 100):
        raise Refused
    exponent = amount.as_tuple().exponent
    if not isinstance(exponent, int) or not -200 <= exponent <= 100:
        raise Refused
    return amount


def moment(value: Any) -> datetime:
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise Refused
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise Refused from None


def uuid(value: Any) -> UUID:
    if not isinstance(value, UUID):
        raise Refused
    return value


def trace_id(value: Any) -> UUID:
    if not uuid(value).int:
        raise Refused
    return uuid(value)


def span_id(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch("[0-9a-f]{16}", value, re.IGNORECASE):
        raise Refused
    if not int(value, 16):
        raise Refused
    return value.lower()


def json(value: Any) -> Any:
    """JSON as jsonb holds it: numbers are decimals there, without exponents or a negative zero."""
    match value:
        case None | bool():
            return value
        case Enum():
            return json(value.value)
        case str():
            return text(value)
        case int():
            if abs(value) >= 10**4300:  # more digits than Python reads and writes
                raise Refused
            return value
        case float():
            return _named(value) if not math.isfinite(value) else _written_out(repr(value))
        case Decimal():
            return _decimal(value)
        case Mapping():
            return {_key(key): json(item) for key, item in value.items()}
        case list() | tuple():
            return [json(item) for item in value]
        case UUID():
            return str(value)
        case datetime() | date() | time():
            return value.isoformat()
    raise Refused


def json_object(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise Refused
    return json(value)


def json_objects(value: Any) -> Any:
    if not isinstance(value, (list, tuple)) or not all(isinstance(each, Mapping) for each in value):
        raise Refused
    return json(value)


def _decimal(value: Decimal) -> Any:
    if not value.is_finite():
        return _named(math.nan if value.is_nan() else float(value))
    if value.adjusted() > 4000:
        raise Refused
    if value == value.to_integral_value():
        return int(value)
    return _written_out(repr(float(value)))


def _key(key: Any) -> str:
    match key:
        case str():
            return text(key)
        case bool():
            return "true" if key else "false"
        case None:
            return "null"
        case float() if not math.isfinite(key):
            return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}[str(key)]
        case int() | float():
            return repr(key)
    raise Refused


def _named(value: float) -> str:
    repairs.count += 1
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _written_out(number: str) -> int | float:
    digits = format(Decimal(number), "f")
    return float(digits) or 0.0 if "." in digits else int(digits)
