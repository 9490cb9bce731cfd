"""Readers that convert an attribute's value to a column's value; None if it is not valid."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from enum import Enum
from typing import Any, Final

from sqlalchemy import BigInteger, Double, Numeric, Text

from observatory_storage.models import TraceSpan

__all__ = [
    "MAX_AMOUNT",
    "MAX_INT64",
    "MAX_TEXT_BYTES",
    "read_amount",
    "read_duration",
    "read_seconds",
    "read_text",
    "read_tokens",
    "reader_of",
]

MAX_TEXT_BYTES: Final = 1024  # these columns are indexed, and a btree entry is bounded
MAX_INT64: Final = 2**63 - 1
MAX_AMOUNT: Final = 10**12  # more US dollars than any call costs: a larger number is a mistake

# Longer numbers in text are not measurements. The limit also excludes huge exponents.
_DECIMAL_TEXT: Final = re.compile(r"[0-9]{1,30}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,2})?")


def read_text(value: object) -> str | None:
    """The value if it is text that an indexed column can hold, else None."""
    if not isinstance(value, str) or not value or len(value) > MAX_TEXT_BYTES or "\0" in value:
        # JSON has the values of enumerations.
        return read_text(value.value) if isinstance(value, Enum) else None
    if not value.isascii():
        try:
            if len(value.encode()) > MAX_TEXT_BYTES:
                return None
        except UnicodeEncodeError:  # a lone surrogate
            return None
    return value


def read_tokens(value: object) -> int | None:
    """The value as a count of tokens (an integer in any numeric form, or its digits), else None."""
    if isinstance(value, int):
        number = -1 if isinstance(value, bool) else value
    elif isinstance(value, str):
        # Some exporters make every attribute a string.
        number = int(value) if value.isascii() and value.isdigit() and len(value) <= 19 else -1
    elif isinstance(value, float):
        # JavaScript and JSON know one kind of number: 12.0 is twelve tokens, 12.5 is nothing.
        number = int(value) if value.is_integer() else -1
    else:
        return None
    return number if 0 <= number <= MAX_INT64 else None


def read_amount(value: object) -> Decimal | None:
    """The value as US dollars, exactly as it is written in decimal, else None."""
    if isinstance(value, float):
        # repr is the shortest decimal that is this float: 0.1 stays 0.1. NaN fails the comparison.
        return Decimal(repr(value or 0.0)) if 0 <= value < MAX_AMOUNT else None
    if isinstance(value, str):
        if _DECIMAL_TEXT.fullmatch(value) is None:
            return None
        amount = Decimal(value)
    elif isinstance(value, Decimal):
        if not value.is_finite() or not -100 <= int(value.as_tuple().exponent) <= 100:
            return None
        amount = value
    elif isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value) if 0 <= value < MAX_AMOUNT else None
    else:
        return None
    return amount if 0 <= amount < MAX_AMOUNT else None


def read_duration(value: object) -> float | None:
    """The value as a non-negative number of some unit of time, else None."""
    if isinstance(value, str):
        if _DECIMAL_TEXT.fullmatch(value) is None:
            return None
        value = float(value)
    elif not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    return float(value) if 0 <= value <= MAX_INT64 else None


def read_seconds(value: object) -> float | None:
    """The value as a number of seconds, in milliseconds, else None."""
    seconds = read_duration(value)
    # Rounded to the nanosecond: 0.0123 s is 12.3 ms, not 12.299999999999999.
    return None if seconds is None else round(seconds * 1000, 6)


def reader_of(column: str) -> Callable[[object], Any]:
    """The reader of a column of `TraceSpan`, by the column's type.

    Raises:
        TypeError: no reader is known for the type.
    """
    match TraceSpan.__table__.c[column].type:
        case Text():
            return read_text
        case BigInteger():
            return read_tokens
        case Double():
            return read_duration
        case Numeric():
            return read_amount
        case other:
            raise TypeError(f"{column}: no reader of attributes is known for {other!r}")
