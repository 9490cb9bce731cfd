"""`to_dict`: converts rows, pages and results to plain dictionaries, optionally for JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, cast
from uuid import UUID

__all__ = ["Result", "to_json"]


class Result:
    """The base class of the dataclasses that the package returns. It adds `to_dict`."""

    __slots__ = ()

    def to_dict(self, *, json: bool = False) -> dict[str, Any]:
        """Return the fields by name, as a new dictionary; nested results become dictionaries too.

        Fields that are not shown by `repr` are left out.

        Args:
            json: convert each value for `json.dumps`. Times become ISO 8601 text in UTC
                (``2026-01-31T12:00:00Z``), UUIDs become dashed text, Decimals become text with all
                their digits, tuples become lists, and errors become their messages.
        """
        names = [field.name for field in fields(cast(Any, self)) if field.repr]
        named = {name: _plain(getattr(self, name), json=json) for name in names}
        return to_json(named) if json else named


def to_json(value: Any) -> Any:
    """The value converted to JSON types; `Result.to_dict` lists the conversions."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, (Decimal, UUID, PurePath, BaseException)):
        return str(value)
    if isinstance(value, Enum):
        return to_json(value.value)
    if isinstance(value, Mapping):
        return {str(key): to_json(each) for key, each in value.items()}
    if isinstance(value, Iterable):
        return [to_json(each) for each in value]
    return str(value)


def _plain(value: Any, *, json: bool) -> Any:
    """The value, with the rows and results in it converted to dictionaries."""
    if hasattr(value, "to_dict"):
        return value.to_dict(json=json)
    if hasattr(value, "_asdict"):  # a named tuple
        value = value._asdict()
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(each, json=json) for each in value)
    if isinstance(value, Mapping):
        return {key: _plain(each, json=json) for key, each in value.items()}
    return value
