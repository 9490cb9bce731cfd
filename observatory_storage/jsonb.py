"""JSON as PostgreSQL's jsonb takes it, with what it cannot hold repaired rather than lost.

The fast way is orjson, and clean values take no other. Only when orjson refuses a value, or its
output shows that something may have been lost, is the value walked in Python:

* NUL and lone surrogates become U+FFFD;
* NaN and the infinities become the strings "NaN", "Infinity", "-Infinity";
* integers beyond 64 bits stay exact;
* a `Decimal` becomes the integer that it is, else the nearest float;
* keys that are numbers, booleans or None become their JSON text;
* enumerations become their values, UUIDs and times their text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from types import NoneType
from typing import Any, Final
from uuid import UUID

import orjson

from observatory_storage.errors import ValidationError

__all__ = [
    "EMPTY_ARRAY",
    "EMPTY_OBJECT",
    "canonical",
    "clean_text",
    "dumps",
    "encode",
    "encode_many",
    "shared",
]

# The binary format of jsonb: a version, then the text. Sent as it is by binary COPY.
_VERSION: Final = b"\x01"
EMPTY_OBJECT: Final = _VERSION + b"{}"
EMPTY_ARRAY: Final = _VERSION + b"[]"
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"

# Left to the careful way: a dataclass, which it refuses, and times. orjson 3.13 writes 10,000 us as
# ".10000", and rounds offsets to minutes.
_OPTIONS: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
# Here `_is_plain` has a look at what was written, and datetimes in UTC are written right.
_SORTED: Final = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_SORT_KEYS
_LEAVES: Final = frozenset({str, int, bool, NoneType, orjson.Fragment})
# Between these no float's text has an exponent, and all encoders write the same.
_LEAST_PLAIN: Final = 1e-4
_LEAST_LARGE: Final = 1e16
_MOST_DIGITS: Final = 4000  # Python reads and writes no integers of more than 4,300


def encode(value: Any, field: str = "value") -> tuple[bytes, int]:
    """The value in the binary format of jsonb, and how many values in it were repaired.

    Raises:
        ValidationError: the value has something that is not JSON, or is nested too deeply.
    """
    text, repairs = _dumps(value, field)
    return _VERSION + text, repairs


def encode_many(values: Sequence[Any], field: str) -> list[bytes | None] | None:
    """As `encode` of each; None stays None, and one object among them many times is encoded once.

    Returns None where something was repaired: then each has to be encoded, and counted, by itself.

    Raises:
        ValidationError: as `encode` does.
    """
    distinct = {id(value): value for value in values}
    if 2 * len(distinct) <= len(values):
        known = {key: _encoded(value, field) for key, value in distinct.items()}
        if any(repairs for _, repairs in known.values()):
            return None
        return [known[id(value)][0] for value in values]
    encoded: list[bytes | None] = []
    write = orjson.dumps
    for value in values:
        # The fast path of `_dumps`, without the calls.
        try:
            text = write(value, option=_OPTIONS)
        except TypeError:
            text = b"null"
        if b"null" in text or (b"\\" in text and b"\\u0000" in text):
            single, repairs = _encoded(value, field)
            if repairs:
                return None
            encoded.append(single)
        else:
            encoded.append(_VERSION + text)
    return encoded


def _encoded(value: Any, field: str) -> tuple[bytes | None, int]:
    return (None, 0) if value is None else encode(value, field)


def dumps(value: Any, field: str = "value") -> bytes:
    """The value as JSON text that jsonb takes.

    Raises:
        ValidationError: the value has something that is not JSON, or is nested too deeply.
    """
    return _dumps(value, field)[0]


def _dumps(value: Any, field: str) -> tuple[bytes, int]:
    """The value as JSON text, and how many values in it were repaired."""
    try:
        text = orjson.dumps(value, option=_OPTIONS)
    except TypeError:
        return _careful(value, field)
    # jsonb has no \u0000, and orjson writes NaN as null: look closer only where one may stand.
    # Looking for a single byte first is the cheapest test.
    if b"\\" in text and b"\\u0000" in text:
        return _careful(value, field)
    if b"null" in text and not _is_plain(value):
        return _careful(value, field)
    return text, 0


def decode(encoded: bytes | None) -> Any:
    """The value that `encode` was given."""
    return None if encoded is None else json.loads(encoded[1:])


def canonical(value: Any) -> str:
    """The repaired value as JSON text with sorted keys: equal values give equal text.

    Numbers of unlike types are not equal here: 1 is not 1.0. The text depends neither on the host
    nor on the version of a library, so that ids can be computed from it.

    Raises:
        ValidationError: as `dumps` does.
    """
    try:
        text = orjson.dumps(value, option=_SORTED)
    except TypeError:
        pass  # the careful way says why, or knows better
    else:
        if b"\\u0000" not in text and _is_plain(value):
            return text.decode()
    try:
        return _written(_Repair("value").plain(value), sort_keys=True)
    except RecursionError:
        raise _too_deep("value") from None
    except ValueError as error:
        raise _not_json("value", error) from None


def shared(value: Any) -> Any:
    """The value for `canonical`, as a part of many values, so that it is written once."""
    return orjson.Fragment(canonical(value).encode())


def clean_text(text: str) -> str:
    """The text with NUL and lone surrogates, which PostgreSQL cannot hold, as U+FFFD."""
    cleaned = text.replace("\x00", _REPLACEMENT)
    try:
        cleaned.encode()
    except UnicodeEncodeError:
        # Pairs of surrogates that make a character become that character.
        cleaned = cleaned.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return cleaned


def _is_plain(value: Any) -> bool:
    """Whether all is of JSON's own types, and no number among it needs a closer look.

    The value must have an end: ask orjson first.
    """
    pending = [value]
    while pending:
        item = pending.pop()
        kind = type(item)
        if kind is dict or kind is list or kind is tuple:
            inside = item.values() if kind is dict else item
            if not _LEAVES.issuperset(map(type, inside)):
                pending.extend(inside)
        elif kind is float:
            # False for NaN too.
            if not (item == 0 or _LEAST_PLAIN <= abs(item) < _LEAST_LARGE):
                return False
        elif kind not in _LEAVES and (kind is not datetime or item.tzinfo is not UTC):
            return False
    return True


def _careful(value: Any, field: str) -> tuple[bytes, int]:
    repair = _Repair(field)
    try:
        plain = repair.plain(value)
        try:
            return orjson.dumps(plain), repair.count
        except TypeError:  # an integer beyond 64 bits, or deeper than orjson goes
            return _written(plain).encode(), repair.count
    except RecursionError:
        raise _too_deep(field) from None
    except ValueError as error:
        raise _not_json(field, error) from None


def _written(plain: Any, *, sort_keys: bool = False) -> str:
    return json.dumps(
        plain, allow_nan=False, separators=(",", ":"), ensure_ascii=False, sort_keys=sort_keys
    )


def _too_deep(field: str) -> ValidationError:
    return ValidationError(field, "…", "is nested too deeply, or contains itself")


def _not_json(field: str, error: ValueError) -> ValidationError:
    if isinstance(error, ValidationError):
        return error
    return ValidationError(field, "…", f"is not JSON: {error}")  # an integer of too many digits


class _Repair:
    """Brings a value into the types of JSON.

    Attributes:
        field: named by errors.
        count: how many values had to be repaired.
    """

    def __init__(self, field: str) -> None:
        self.field = field
        self.count = 0

    def plain(self, value: Any) -> Any:
        """The value in the types of JSON, repaired."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, Enum):
            return self.plain(value.value)
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, int):
            return int(value)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else self._named(value)
        if isinstance(value, Decimal):
            return self._number(value)
        if isinstance(value, Mapping):
            return {self._key(key): self.plain(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.plain(item) for item in value]
        if isinstance(value, UUID):
            return str(value)
        if isinstance(value, (datetime, date, time)):
            return value.isoformat()
        if isinstance(value, orjson.Fragment):
            return json.loads(orjson.dumps(value))
        raise ValidationError(self.field, value, f"is not JSON: {type(value).__name__}")

    def _text(self, value: str) -> str:
        cleaned = clean_text(value)
        self.count += cleaned != value
        return cleaned

    def _number(self, value: Decimal) -> int | float | str:
        if not value.is_finite():
            return self._named(math.nan if value.is_nan() else float(value))
        # Checked before it is written out: 1E+999999999 is short, its digits are not.
        if value.adjusted() > _MOST_DIGITS:
            rule = f"has a number of more than {_MOST_DIGITS} digits"
            raise ValidationError(self.field, value, rule)
        nearest = float(value)
        if math.isinf(nearest) or value == value.to_integral_value():
            return int(value)
        return nearest

    def _key(self, key: object) -> str:
        if isinstance(key, str):
            return self._text(key)
        if isinstance(key, (bool, int, float)) or key is None:
            return str(json.dumps(key)).strip('"')
        raise ValidationError(self.field, key, "has a key that is not text")

    def _named(self, value: float) -> str:
        self.count += 1
        if math.isnan(value):
            return "NaN"
        return "Infinity" if value > 0 else "-Infinity"
