"""Cursors: opaque texts that hold the key of the row where a page ended.

A cursor holds the key, a fingerprint of the query that it belongs to, and a checksum, in base64url.
The checksum detects damage; it is not a secret. A cursor needs no secret, because it cannot select
more than the query's filters do.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from hashlib import blake2b
from typing import Any, Final
from uuid import UUID

from sqlalchemy import SmallInteger
from sqlalchemy.types import TypeEngine

from observatory_storage import jsonb
from observatory_storage.errors import ValidationError

__all__ = [
    "NOT_A_KEY",
    "damaged_cursor",
    "decode_cursor",
    "encode_cursor",
    "from_plain",
    "key_value",
    "to_plain",
]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_CHECKSUM_BYTES: Final = 6
_LONGEST_CURSOR: Final = 16_384
# A numeric has more before its point, and as many after it as a cursor can spell.
_MOST_DIGITS: Final = 16_000

# The errors that `from_plain` and `key_value` raise for a value that no key can hold.
NOT_A_KEY: Final = (ValueError, TypeError, OverflowError)


def encode_cursor(list_name: str, query: Mapping[str, Any], values: Sequence[Any]) -> str:
    """The cursor of a query that holds these plain JSON values."""
    content = json.dumps([_fingerprint(list_name, query), *values], separators=(",", ":")).encode()
    return _base64(_checksum(content) + content)


def decode_cursor(
    field: str, cursor: object, list_name: str, query: Mapping[str, Any]
) -> list[Any]:
    """The values that a cursor holds.

    Raises:
        ValidationError: the text is not a cursor, was changed, or belongs to another query.
    """
    if not isinstance(cursor, str):
        raise ValidationError(field, cursor, "must be the cursor of a page")
    if len(cursor) > _LONGEST_CURSOR:
        raise damaged_cursor(field, cursor)
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except (binascii.Error, ValueError):
        raise damaged_cursor(field, cursor) from None
    checksum, content = raw[:_CHECKSUM_BYTES], raw[_CHECKSUM_BYTES:]
    # Base64 can spell the same bytes in several ways; only our own spelling is accepted.
    if checksum != _checksum(content) or _base64(raw) != cursor:
        raise damaged_cursor(field, cursor)
    values: list[Any]
    try:
        fingerprint, *values = json.loads(content)
    except (ValueError, TypeError, RecursionError):
        raise damaged_cursor(field, cursor) from None
    if fingerprint != _fingerprint(list_name, query):
        raise ValidationError(field, cursor, "is the cursor of another query")
    return values


def to_plain(value: Any) -> Any:
    """A key's value as plain JSON, without loss."""
    if isinstance(value, datetime):
        return (value - _EPOCH) // _MICROSECOND
    if isinstance(value, Decimal):
        return str(value)
    return value.hex if isinstance(value, UUID) else value


def from_plain(value: Any, kind: type) -> Any:
    """The inverse of `to_plain`, for a value of the kind."""
    if kind is datetime:
        return _EPOCH + timedelta(microseconds=value)
    if kind is UUID and isinstance(value, str):
        return UUID(hex=value)
    if kind is Decimal and type(value) in (int, str):
        return _number(str(value))
    if type(value) is not kind:
        raise TypeError(kind)
    return value


def _number(text: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise ValueError(text) from None
    if not number.is_finite() or abs(number.adjusted()) > _MOST_DIGITS:
        raise OverflowError(text)
    return number


def key_value(plain: Any, kind: TypeEngine[Any]) -> Any:
    """The column's value for a plain JSON value, which may be anything in a forged cursor.

    Raises:
        ValueError, TypeError, OverflowError: the column cannot hold it; see `NOT_A_KEY`.
    """
    value = from_plain(plain, kind.python_type)
    if isinstance(value, int):
        bits = 15 if isinstance(kind, SmallInteger) else 63
        if not -(2**bits) <= value < 2**bits:
            raise OverflowError(value)
    if isinstance(value, str) and jsonb.clean_text(value) != value:
        raise ValueError(value)
    return value


def damaged_cursor(field: str, cursor: object) -> ValidationError:
    """The error for a text that is not a cursor."""
    return ValidationError(field, cursor, "is not a cursor that a page gave")


def _fingerprint(list_name: str, query: Mapping[str, Any]) -> str:
    content = jsonb.canonical_bytes([list_name, dict(query)])
    return blake2b(content, digest_size=8).hexdigest()


def _checksum(content: bytes) -> bytes:
    return blake2b(content, digest_size=_CHECKSUM_BYTES, person=b"obs-cursor").digest()


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
