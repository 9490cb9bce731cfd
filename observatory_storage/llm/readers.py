"""Readers that convert an attribute's value to a column's value; None if it is not valid."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import Enum
from typing import Any, Final

import orjson
from sqlalchemy import BigInteger, Double, Numeric, Text

from observatory_storage.llm.vocabulary import operation_of, provider_of
from observatory_storage.models import TraceSpan

__all__ = [
    "MAX_AMOUNT",
    "MAX_INT64",
    "MAX_TEXT_BYTES",
    "read_amount",
    "read_duration",
    "read_finish_reason",
    "read_operation",
    "read_provider",
    "read_seconds",
    "read_text",
    "read_tokens",
    "reader_of",
    "structure",
    "value_at",
]

MAX_TEXT_BYTES: Final = 1024  # these columns are indexed, and a btree entry is bounded
MAX_INT64: Final = 2**63 - 1
MAX_AMOUNT: Final = 10**12  # more US dollars than any call costs: a larger number is a mistake

MAX_JSON_CHARACTERS: Final = 65_536  # longer text holds messages, not facts

# Longer numbers in text are not measurements. The limit also excludes huge exponents.
_DECIMAL_TEXT: Final = re.compile(r"[0-9]{1,30}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,2})?")


def structure(value: object) -> Any:
    """The value if it is a structure, or the structure that is JSON in it; else None."""
    if isinstance(value, (dict, list)):
        return value
    if isinstance(value, str) and value[:1] in ("{", "[") and len(value) <= MAX_JSON_CHARACTERS:
        try:
            return orjson.loads(value)
        except ValueError:
            return None
    return None


def value_at(found: Any, path: tuple[str, ...]) -> Any:
    """The value behind the steps within a structure; None if there is none."""
    for step in path:
        if isinstance(found, Mapping):
            found = found.get(step)
        elif isinstance(found, list) and step.isdecimal() and int(step) < len(found):
            found = found[int(step)]
        else:
            return None
    return found


def read_text(value: object) -> str | None:
    """The value if it is text that an indexed column can hold, else None.

    Some exporters write every attribute as JSON: a text that is quoted as a whole loses its quotes.
    """
    if (
        type(value) is str
        and 0 < len(value) <= MAX_TEXT_BYTES
        and value.isascii()
        and value[0] != '"'
        and "\0" not in value
    ):
        return value  # as nearly always
    if not isinstance(value, str) or not value or len(value) > MAX_TEXT_BYTES or "\0" in value:
        # JSON has the values of enumerations.
        return read_text(value.value) if isinstance(value, Enum) else None
    if value[0] == '"' and value[-1] == '"' and len(value) > 1:
        try:
            return read_text(orjson.loads(value))
        except ValueError:  # these quotes are the text's own
            pass
    if not value.isascii():
        try:
            if len(value.encode()) > MAX_TEXT_BYTES:
                return None
        except UnicodeEncodeError:  # a lone surrogate
            return None
    return value


def read_operation(value: object) -> str | None:
    """The value as an operation in OpenTelemetry's spelling, else None."""
    kind = read_text(value)
    return None if kind is None else operation_of(kind)


def read_provider(value: object) -> str | None:
    """The value as a provider in OpenTelemetry's spelling, else None."""
    spelling = read_text(value)
    return None if spelling is None else provider_of(spelling)


def read_finish_reason(value: object) -> str | None:
    """The value if it is text, or the first of a list of texts, also of a list in JSON."""
    if isinstance(value, str) and value[:1] == "[":
        try:
            value = orjson.loads(value)
        except ValueError:
            return None
    if isinstance(value, (list, tuple)):
        for item in value:
            reason = read_text(item)
            if reason is not None:
                return reason
        return None
    return read_text(value)


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
        # Its repr is the shortest decimal that is this float: 0.1 stays 0.1. That of a subclass, as
        # NumPy's, may be anything. NaN fails the comparison.
        return Decimal(float.__repr__(value or 0.0)) if 0 <= value < MAX_AMOUNT else None
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
