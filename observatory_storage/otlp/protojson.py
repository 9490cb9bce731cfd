"""Reads and writes scalar values of OTLP/JSON, which is ProtoJSON with ids in hex.

Every reader accepts what `ProtoJSON <https://protobuf.dev/programming-guides/json/>`_ allows:
64-bit integers as text or numbers, enum values by number or name, and null or an absent field for
the default. For all other values it raises a `ValidationError` that names the field.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from observatory_storage import jsonb
from observatory_storage.errors import ValidationError
from observatory_storage.ids import MAX_NAME_BYTES
from observatory_storage.times import MICROSECOND, UNIX_EPOCH

__all__ = [
    "MAX_DEPTH",
    "MAX_INT64",
    "UNNAMED",
    "base64_text",
    "boolean",
    "double",
    "double_json",
    "enum",
    "hex_id",
    "identifier",
    "integer",
    "is_exact",
    "items",
    "message",
    "moment",
    "named",
    "nanoseconds",
    "text",
    "uint32",
    "uint64",
]

MAX_DEPTH: Final = 50  # of values; protobuf's own limit of 100 messages allows no more
MAX_INT64: Final = 2**63 - 1
_MAX_UINT64: Final = 2**64 - 1
_MAX_UINT32: Final = 2**32 - 1
_MAX_INT32: Final = 2**31 - 1
_NUMBER = re.compile(
    r"-?(?:0|[1-9][0-9]{0,40})(?:\.[0-9]{1,40})?(?:[eE][+-]?[0-9]{1,3})?", re.ASCII
)
_MOST_DIGITS: Final = 20
_INTEGER = re.compile(r"-?[0-9]{1,20}", re.ASCII)
UNNAMED: Final = "unnamed"
# A character has at most four bytes, so the bytes of a shorter text need not be counted.
_ALWAYS_FITTING_LENGTH: Final = MAX_NAME_BYTES // 4
# From 1e16 on a double's shortest text has an exponent, which jsonb writes out as an integer.
_EXACT_BELOW: Final = 1e16
_NAMED_DOUBLES: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def integer(value: Any, field: str, least: int, most: int) -> int:
    """An integer given as a number or as its text, which may have an exponent."""
    if type(value) is int:
        number = value
    elif (isinstance(value, str) and _INTEGER.fullmatch(value)) or (
        isinstance(value, float) and value.is_integer()
    ):
        number = int(value)
    elif value is None:
        return 0
    else:
        whole = Decimal(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else None
        # Checked before it is written out: 1e999 is short, its digits are not.
        if whole is None or whole.adjusted() > _MOST_DIGITS or whole != whole.to_integral_value():
            raise ValidationError(field, value, "must be an integer, as a number or as its text")
        number = int(whole)
    if least <= number <= most:
        return number
    raise ValidationError(field, value, f"must be from {least} to {most}")


def uint64(value: Any, field: str) -> int:
    """An unsigned integer of 64 bits."""
    return integer(value, field, 0, _MAX_UINT64)


def uint32(value: Any, field: str) -> int:
    """An unsigned integer of 32 bits."""
    return integer(value, field, 0, _MAX_UINT32)


def double(value: Any, field: str) -> float:
    """A double given as a number, as its text, or as "NaN", "Infinity", "-Infinity"."""
    if type(value) is float:
        return value
    if value is None:
        return 0.0
    if isinstance(value, str):
        named = _NAMED_DOUBLES.get(value)
        if named is not None:
            return named
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number) or isinstance(value, float):
            return number
    raise ValidationError(
        field, value, 'must be a 64-bit number, or "NaN", "Infinity" or "-Infinity"'
    )


def double_json(value: float) -> float | str:
    """The double in OTLP/JSON: a number, or the name of a value that JSON lacks."""
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def is_exact(number: float) -> bool:
    """Whether plain JSON represents a double unchanged."""
    # Zero equals negative zero, which jsonb does not have.
    return -_EXACT_BELOW < number < _EXACT_BELOW and (number != 0 or str(number) == "0.0")


def boolean(value: Any, field: str) -> bool:
    """True or false."""
    if value is None:
        return False
    if isinstance(value, bool):
        return value
    raise ValidationError(field, value, "must be true or false")


def text(value: Any, field: str) -> str:
    """A string."""
    if type(value) is str:
        return value
    if value is None:
        return ""
    raise ValidationError(field, value, "must be text")


def base64_text(value: Any, field: str) -> str:
    """Bytes in standard base64, read from standard or URL-safe base64, padded or not."""
    given = text(value, field)
    try:
        standard = given.replace("-", "+").replace("_", "/")
        content = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (ValueError, binascii.Error):
        raise ValidationError(field, value, "must be bytes in base64") from None
    return base64.b64encode(content).decode()


def enum(value: Any, field: str, names: Mapping[str, int]) -> int:
    """The number of an enum value, given as number or name. Unknown numbers are kept."""
    if type(value) is int and -_MAX_INT32 <= value <= _MAX_INT32:
        return value
    if value is None:
        return 0
    if isinstance(value, str):
        number = names.get(value)
        if number is not None:
            return number
    try:
        return integer(value, field, -_MAX_INT32 - 1, _MAX_INT32)
    except ValidationError:
        known = ", ".join(names)
        raise ValidationError(field, value, f"must be a 32-bit number or one of {known}") from None


def hex_id(value: Any, field: str, digits: int | None = None) -> str:
    """An id in lower-case hex, or an empty text if it is absent.

    Args:
        digits: the number of hex digits that a non-empty id must have; None for any even number.
    """
    if isinstance(value, str) and (digits is None or digits == len(value)):
        try:
            read = bytes.fromhex(value).hex()
        except ValueError:
            read = ""
        if len(read) == len(value):  # blanks are skipped
            return read
    if value is None or value == "":
        return ""
    wanted = f"{digits} hex digits" if digits else "an even number of hex digits"
    lengths = (_base64_length(digits),) if digits else _BASE64_LENGTHS
    if isinstance(value, str) and len(value) in lengths:
        wanted += " (OTLP/JSON has ids in hex, not in base64)"
    raise ValidationError(field, value, f"must be {wanted}")


def _base64_length(digits: int) -> int:
    """The length in base64 of an id that has so many hex digits."""
    return -(-digits // 6) * 4


_BASE64_LENGTHS: Final = tuple(map(_base64_length, (16, 32)))


def identifier(value: str | bytes, field: str, digits: int | None = None) -> str:
    """An id of a message: of JSON, where it is hex, or of protobuf."""
    if type(value) is bytes:
        if digits == 2 * len(value):
            return value.hex()
        value = value.hex()
    return hex_id(value, field, digits)


def moment(nanoseconds: int) -> tuple[datetime, int]:
    """A Unix time in nanoseconds as a datetime, and the nanoseconds beyond its microseconds."""
    microseconds, rest = divmod(nanoseconds, 1000)
    return UNIX_EPOCH + microseconds * MICROSECOND, rest


def nanoseconds(time: datetime | None, rest: int = 0) -> int:
    """The Unix time in nanoseconds: the inverse of `moment`; 0 for None."""
    if time is None:
        return 0
    past = time - UNIX_EPOCH
    # With integers, since a float has 53 bits and the nanoseconds of today need 61.
    return ((past.days * 86_400 + past.seconds) * 1_000_000 + past.microseconds) * 1000 + rest


def message(value: Any, field: str) -> Mapping[str, Any] | None:
    """A message, or None if it is absent."""
    if value is None or isinstance(value, Mapping):
        return value
    raise ValidationError(field, value, "must be an object")


def items(value: Any, field: str) -> list[Any]:
    """A repeated field."""
    if value is None:
        return []
    if isinstance(value, (list, tuple)):
        return list(value) if isinstance(value, tuple) else value
    raise ValidationError(field, value, "must be an array")


def named(name: str) -> tuple[str, str | None]:
    """The name for its column, and the original name if the column has another one.

    Columns of names are indexed, and the entry of an index has a limit of bytes. They are never
    empty, although OTLP allows empty names.
    """
    if not name:
        return UNNAMED, name
    if len(name) <= _ALWAYS_FITTING_LENGTH:
        return name, None
    cleaned = jsonb.clean_text(name)
    encoded = cleaned.encode()
    if len(encoded) <= MAX_NAME_BYTES:
        return name, None
    return encoded[:MAX_NAME_BYTES].decode("utf-8", "ignore"), name
