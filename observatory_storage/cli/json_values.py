"""Rows and results as JSON with all their digits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import PurePath
from typing import Any
from uuid import UUID

import orjson
import sqlalchemy as sa

from observatory_storage.models import Base

__all__ = ["json_line", "json_value"]

_INT64 = 2**63


def json_line(value: Any) -> bytes:
    """The value as one line of JSON."""
    return orjson.dumps(json_value(value), option=orjson.OPT_APPEND_NEWLINE)


def json_value(value: Any) -> Any:
    """The value in types that orjson encodes, without loss.

    A row becomes an object of its loaded columns. Decimals and long integers become numbers with
    all their digits, times ISO 8601 in UTC.
    """
    if value is None or isinstance(value, (str, bool, float)):
        return value
    if isinstance(value, int):
        return value if -_INT64 <= value < _INT64 else orjson.Fragment(str(value))
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value, "f"))
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, (UUID, PurePath)):
        return str(value)
    if isinstance(value, Base):
        state = sa.inspect(value)
        columns = (column.key for column in state.mapper.column_attrs)
        loaded = (key for key in columns if key not in state.unloaded)
        return {key: json_value(getattr(value, key)) for key in loaded}
    if isinstance(value, Mapping):
        return {str(key): json_value(each) for key, each in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: json_value(getattr(value, field.name)) for field in fields(value)}
    return [json_value(each) for each in value]
