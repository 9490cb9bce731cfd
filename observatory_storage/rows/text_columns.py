"""The columns of text that rules look at, and the patterns of names."""

from __future__ import annotations

import re
from typing import Final

import sqlalchemy as sa

from observatory_storage.models.base import NAME
from observatory_storage.tables import TABLES

__all__ = ["NAME_COLUMNS", "TEXT_COLUMNS", "glob"]


# Identifiers, and columns that have one of a few words.
_NO_TEXT: Final = frozenset(
    {
        *("trace_id", "span_id", "parent_span_id", "lead_span_id"),
        *("status", "kind", "metric_type", "temporality"),
        *("cost_source", "reported_cost_source"),
    }
)
TEXT_COLUMNS: Final = {
    name: frozenset(
        column.name
        for column in table.table.columns
        if isinstance(column.type, sa.Text) and column.name not in _NO_TEXT
    )
    for name, table in TABLES.items()
}
NAME_COLUMNS: Final = frozenset(
    column.name
    for table in TABLES.values()
    for column in table.table.columns
    if isinstance(column.type, sa.Text) and column.type.collation == NAME.collation
)


def glob(pattern: str) -> re.Pattern[str]:
    """A pattern in which ``*`` stands for any characters; it has to match all of a text."""
    parts = map(re.escape, pattern.split("*"))
    return re.compile(f"(?:{'.*'.join(parts)})\\Z", re.DOTALL)
