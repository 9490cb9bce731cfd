"""JSON as PostgreSQL's jsonb takes it, with what it cannot hold repaired rather than lost.

The fast way is orjson, and clean values take no other. Only when orjson refuses a value, or its
output shows that something may have been lost, is the value walked in Python:

* NUL and lone surrogates become U+FFFD;
* NaN and the infinities become the strings "NaN", "Infinity", "-Infinity";
* integers beyond 64 bits stay exact.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

import orjson

from observatory_storage.errors import ValidationError

__all__ = ["EMPTY_ARRAY", "EMPTY_OBJECT", "canonical", "clean_text", "dumps", "encode", "repairs"]

# The binary format of jsonb: a version, then the text. Sent as it is by binary COPY.
_VERSION: Final = b"\x01"
EMPTY_OBJECT: Final = _VERSION + b"{}"
EMPTY_ARRAY: Final = _VERSION + b"[]"
_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"


class _Repairs(threading.local):
    """How many values were repaired in this thread since it began."""

    count = 0


repairs: Final = _Repairs()


def encode(value: Any, field: str = "value") -> bytes:
    """The value in the binary format of jsonb.

    Raises:
        ValidationError: the value has something that is not JSON, or is nested too deeply.
    """
    return _VERSION + dumps(value, field)


def dumps(value: Any, field: str = "value") -> bytes:
    """The value as JSON text that jsonb takes.

    Raises:
        ValidationError: the value has something that is not JSON, or is nested too deeply.
    """
    try:
        text = orjson.dumps(value)
    except (TypeError, RecursionError):
        return _careful(value, field)
    # orjson writes NaN as null, and jsonb has no \u0000: look closer only where one may stand.
    if b"null" in text or b"\\u0000" in text:
        return _careful(value, field)
    return text


def decode(encoded: bytes | None) -> Any:
    """The value that `encode` was given."""
    return None if encoded is None else json.loads(encoded[1:])


def canonical(value: Any) -> str:
    """The value as JSON text with sorted keys: equal values give equal text."""
    try:
        text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except (TypeError, RecursionError):
        text = b"null"
    if b"null" in text:
        plain = _plain(value, "value")
        return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.decode()


def clean_text(text: str) -> str:
    """The text with NUL and lone surrogates, which PostgreSQL cannot hold, as U+FFFD."""
    cleaned = text.replace("\x00", _REPLACEMENT)
    try:
        cleaned.encode()
    except UnicodeEncodeError:
        # Pairs of surrogates that make a character become that character.
        cleaned = cleaned.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if cleaned != text:
        repairs.count += 1
    return cleaned


def _careful(value: Any, field: str) -> bytes:
    try:
        return json.dumps(
            _plain(value, field), allow_nan=False, separators=(",", ":"), ensure_ascii=False
        ).encode()
    except RecursionError:
        raise ValidationError(field, "…", "is nested too deeply, or contains itself") from None
    except ValidationError:
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise ValidationError(field, "…", f"is not JSON: {error}") from None


def _plain(value: Any, field: str) -> Any:
    """The value in the types of JSON, repaired."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return _plain(value.value, field)
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else _named(value)
    if isinstance(value, Decimal):
        if not value.is_finite():
            return _named(float(value))
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, Mapping):
        return {_key(key, field): _plain(item, field) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, field) for item in value]
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    raise ValidationError(field, value, f"is not JSON: {type(value).__name__}")


def _key(key: object, field: str) -> str:
    if isinstance(key, str):
        return clean_text(key)
    if isinstance(key, (bool, int, float)) or key is None:
        return str(json.dumps(key)).strip('"')
    raise ValidationError(field, key, "has a key that is not text")


def _named(value: float) -> str:
    repairs.count += 1
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"
