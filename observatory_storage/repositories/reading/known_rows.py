"""Which of some rows, whose keys are known, meet conditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.tables import TableDefinition

__all__ = ["matching_keys"]


def matching_keys(
    reader: Reader,
    table: TableDefinition,
    keys: Sequence[tuple[Any, ...]],
    conditions: Sequence[sa.ColumnElement[bool]],
) -> set[tuple[Any, ...]]:
    """The keys of the rows that are stored and meet the conditions.

    Args:
        reader: the reader.
        table: the table, which is partitioned.
        keys: the primary keys of rows, with their columns in the table's order.
        conditions: the conditions, on the entity.
    """
    columns = [getattr(table.model, name) for name in table.key]
    place = table.key.index(str(table.partition_column))
    times = [key[place] for key in keys]
    bounds = columns[place].between(min(times), max(times))  # leaves out other partitions
    found = sa.select(*columns).where(bounds, sa.tuple_(*columns).in_(keys), *conditions)
    return {tuple(row) for row in reader.rows(found)}
