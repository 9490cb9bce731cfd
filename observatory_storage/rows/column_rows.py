"""Rows made of columns whose values are checked already."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import repeat
from typing import Any, Final

from observatory_storage.rows.column_checks import Column, has_gaps, in_order
from observatory_storage.rows.row import Row
from observatory_storage.rows.table_checks import CHECKS, service_of
from observatory_storage.tables import TableDefinition

__all__ = ["NO_ATTRIBUTES", "complete", "made", "name_services", "rows_of"]

NO_ATTRIBUTES: Final[Mapping[str, Any]] = {}
# Makes a `Row` from an iterable of its fields, without the Python code of a NamedTuple's `__new__`.
_make_row: Final[Callable[[tuple[Any, ...]], Row]] = partial(tuple.__new__, Row)


def rows_of(table: TableDefinition, columns: dict[str, Column], count: int) -> Iterator[Row]:
    """The rows of a table other than spans."""
    values = zip(*in_order(CHECKS[table.name], columns, count), strict=True)
    return made(zip(repeat(table.name), values, repeat(None), repeat(""), repeat(0), repeat(None)))


def made(fields: Iterable[tuple[Any, ...]]) -> Iterator[Row]:
    """The rows with these fields, in the order of `Row`."""
    return map(_make_row, fields)


def complete(columns: dict[str, Column], name: str, values: Iterable[Any]) -> None:
    """Fill in a column where a row does not give it."""
    given = columns.get(name)
    if given is not None and not has_gaps(given):
        return
    columns[name] = (
        list(values)
        if given is None
        else [b if a is None else a for a, b in zip(given, values, strict=True)]
    )


def name_services(columns: dict[str, Column], rows: Sequence[Mapping[str, Any]]) -> None:
    """Take the service of a row that does not name it from its resource."""
    if None in columns.get("service_name", (None,)):
        resources = [row.get("resource_attributes") or NO_ATTRIBUTES for row in rows]
        # Rows of one process share their resource, mostly as one object.
        known = {id(resource): service_of(resource) for resource in resources}
        complete(columns, "service_name", (known[id(resource)] for resource in resources))
