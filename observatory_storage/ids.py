"""Computes ids from the content that they identify.

The same input gives the same id on every host and in every process. So a row that is written twice
(by a retry after a lost connection, or by ingesting a file again) has the same key both times, and
the second write changes nothing.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from hashlib import sha1
from typing import Any, Final
from uuid import UUID, SafeUUID, uuid5

from observatory_storage import jsonb
from observatory_storage.errors import ValidationError
from observatory_storage.times import MICROSECOND, UNIX_EPOCH

__all__ = [
    "are_span_ids",
    "data_point_id",
    "former_trace_uuid",
    "log_id",
    "metric_id",
    "new_span_id",
    "new_trace_id",
    "random_uuids",
    "span_id",
    "trace_text",
    "trace_uuid",
    "uuid_of",
]

NAMESPACE: Final = UUID("6f2b8a54-3a0c-5c0e-9d3e-6d0f4f6f7e21")
_NAMESPACE_BYTES: Final = NAMESPACE.bytes
MAX_NAME_BYTES: Final = 1024  # two of them and a time fit a btree entry (2,704 bytes)

# UUID(hex=…) also accepts "0x…", "+…", braces and blanks. Here, only these two forms are UUIDs.
_HEX_TRACE = re.compile(r"[0-9a-fA-F]{32}")
_DASHED = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_HEX_SPAN = re.compile(r"[0-9a-fA-F]{16}")  # and a trace id of 64 bits
_LOWER_HEX = re.compile(r"[0-9a-f]*")
_SPAN_DIGITS: Final = 16
_WITHOUT_VERSION: Final = ~(0xF << 76 | 0b11 << 62)  # and without the variant
_new, _set = object.__new__, object.__setattr__
_UNKNOWN: Final = SafeUUID.unknown  # looked up once: an enum does that in Python
_NO_SPAN: Final = "0" * _SPAN_DIGITS


def trace_uuid(value: str | UUID, field: str = "trace_id") -> UUID:
    """The UUID of a trace id.

    A text of 32 hex digits, or in the canonical dashed form, is that UUID. A text of 16 hex digits
    is an id of 64 bits, as in B3 and Datadog. It is padded with zeros on the left, as W3C Trace
    Context requires. Any other text is mapped to a UUID of version 5 in a fixed namespace.

    Raises:
        ValidationError: the value is neither a UUID nor a non-empty text, or it is the all-zero id,
            which W3C Trace Context declares invalid.
    """
    if isinstance(value, UUID):
        if value.int == 0:
            raise ValidationError(field, value, "must not be all zeros")
        return _plain_uuid(value)
    if not isinstance(value, str):
        raise ValidationError(field, value, "must be text or a UUID")
    try:
        return _resolved(value)
    except ValueError as error:
        raise ValidationError(field, value, str(error)) from None


@lru_cache(maxsize=8192)
def _resolved(value: str) -> UUID:
    if _HEX_TRACE.fullmatch(value) or _DASHED.fullmatch(value) or _HEX_SPAN.fullmatch(value):
        number = int(value.replace("-", ""), 16)
        if number == 0:
            raise ValueError("must not be all zeros")
        return _uuid(number)
    if not value:
        raise ValueError("must not be empty")
    cleaned = jsonb.clean_text(value)
    if len(cleaned.encode()) > MAX_NAME_BYTES:
        raise ValueError(f"must have at most {MAX_NAME_BYTES} bytes of UTF-8")
    return uuid5(NAMESPACE, cleaned)


def former_trace_uuid(key: UUID) -> UUID | None:
    """The UUID that earlier versions computed for an id of 64 bits; None for a longer id."""
    return uuid5(NAMESPACE, f"{key.int:016x}") if key.int < 2**64 else None


def trace_text(value: str | UUID) -> str:
    """The text of `Trace.trace_id`: the id as given, with hex in lower case."""
    return value.hex if isinstance(value, UUID) else _lowered(value)


@lru_cache(maxsize=8192)
def _lowered(value: str) -> str:
    hexadecimal = (one.fullmatch(value) for one in (_HEX_TRACE, _DASHED, _HEX_SPAN))
    return value.lower() if any(hexadecimal) else str.__str__(value)


def span_id(value: object, field: str = "span_id") -> str:
    """A span id, which has 16 hex digits, in lower case.

    Raises:
        ValidationError: the value is not a span id, or it is the all-zero id.
    """
    if isinstance(value, str) and _HEX_SPAN.fullmatch(value) and value != _NO_SPAN:
        return value.lower()
    raise ValidationError(field, value, "must be 16 hex digits, not all zeros")


def are_span_ids(values: Sequence[str]) -> bool:
    """Whether `span_id` would return each of these texts unchanged."""
    return (
        set(map(len, values)) == {_SPAN_DIGITS}
        and _LOWER_HEX.fullmatch("".join(values)) is not None
        and _NO_SPAN not in values
    )


def uuid_of(value: object, field: str) -> UUID:
    """A UUID that is given as a UUID or as text.

    Raises:
        ValidationError: the value is neither.
    """
    if isinstance(value, UUID):
        return _plain_uuid(value)
    if isinstance(value, str) and (_HEX_TRACE.fullmatch(value) or _DASHED.fullmatch(value)):
        return UUID(hex=value)
    raise ValidationError(field, value, "must be a UUID")


def _plain_uuid(value: UUID) -> UUID:
    # asyncpg and others return instances of their own subclasses of UUID.
    return value if type(value) is UUID else UUID(int=value.int)


def new_trace_id() -> str:
    """A random trace id of W3C Trace Context: 32 hex digits."""
    return secrets.token_hex(16)


def new_span_id() -> str:
    """A random span id of W3C Trace Context: 16 hex digits."""
    return secrets.token_hex(8)


def metric_id(
    *,
    name: str,
    metric_type: str,
    unit: str | None = None,
    temporality: str | None = None,
    resource_attributes: Mapping[str, Any] | None = None,
    scope_name: str | None = None,
    scope_version: str | None = None,
    scope_attributes: Mapping[str, Any] | None = None,
    service_name: str | None = None,
    origin: Any = None,
) -> UUID:
    """The id of a metric.

    Args:
        service_name: used only if the resource attributes do not name the service.
        origin: further values that distinguish two resources or scopes, such as schema URLs.
    """
    resource = dict(resource_attributes or {})
    if service_name is not None:
        resource.setdefault("service.name", service_name)
    scope = [scope_name or "", scope_version or "", dict(scope_attributes or {})]
    return _of("metric", name, metric_type, unit or "", temporality, resource, scope, origin)


def data_point_id(
    *,
    attributes: Mapping[str, Any] | None = None,
    start_timestamp: datetime | None = None,
    origin: Any = None,
) -> UUID:
    """The id of a data point among those of the same metric and time.

    Args:
        start_timestamp: the start, with a time zone.
        origin: further values that distinguish two points, such as nanoseconds without a column.
    """
    start = None if start_timestamp is None else (start_timestamp - UNIX_EPOCH) // MICROSECOND
    return _of("point", dict(attributes or {}), start, origin)


def log_id(content: Any, ordinal: int, unsure: Any = ...) -> UUID:
    """The id of a log record, from its content and its ordinal among equal records.

    Args:
        unsure: as `jsonb.canonical_bytes` has it.
    """
    return _digested(jsonb.canonical_bytes(("log", content, ordinal), unsure))


def random_uuids(count: int) -> list[UUID]:
    """Random UUIDs: `uuid.uuid4` so many times."""
    drawn = os.urandom(16 * count)
    return [_uuid_of_bytes(drawn[at : at + 16], 4) for at in range(0, 16 * count, 16)]


def _of(*parts: Any) -> UUID:
    return _digested(jsonb.canonical_bytes(parts))


def _digested(content: bytes) -> UUID:
    # `uuid.uuid5` of the same text, without its detours.
    digest = sha1(_NAMESPACE_BYTES + content, usedforsecurity=False).digest()
    return _uuid_of_bytes(digest[:16], 5)


def _uuid_of_bytes(content: bytes, version: int) -> UUID:
    """`UUID(bytes=content, version=version)`."""
    number = int.from_bytes(content, "big") & _WITHOUT_VERSION
    return _uuid(number | version << 76 | 1 << 63)


def _uuid(number: int) -> UUID:
    """`UUID(int=number)` in a third of the time: without the code of its constructor."""
    made = _new(UUID)
    _set(made, "int", number)
    _set(made, "is_safe", _UNKNOWN)
    return made
