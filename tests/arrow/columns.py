"""Compares rows of Arrow with entities."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from decimal import Decimal
from typing import Any
from uuid import UUID

import pyarrow as pa

from observatory_storage import jsonb
from observatory_storage.models import Base
from observatory_storage.tables import TABLES

__all__ = ["as_in_arrow", "read_back"]


def read_back(table: pa.Table, model: type[Base]) -> list[dict[str, Any]]:
    """The rows of a table, with JSON in place of its text."""
    json = _json_columns(model)
    return [
        {
            name: jsonb.loads(value) if name in json and value is not None else value
            for name, value in row.items()
        }
        for row in table.to_pylist()
    ]


def as_in_arrow(entities: Iterable[Base]) -> list[dict[str, Any]]:
    """The loaded columns of entities, with the values that `read_back` gives."""
    return [{name: _plain(value) for name, value in entity.items()} for entity in entities]


def _json_columns(model: type[Base]) -> Collection[str]:
    return TABLES[str(model.__table__)].json_columns


def _plain(value: object) -> object:
    if isinstance(value, UUID):
        return str(value)
    return float(value) if isinstance(value, Decimal) else value
