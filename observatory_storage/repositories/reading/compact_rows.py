"""The rows of large results in little memory, from which entities are made when they are needed.

An entity takes some two kilobytes more than its values: a dictionary, and SQLAlchemy's state. Rows
are read through a server-side cursor, since the driver would keep the server's answer beside them.
Equal values of a column are one object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from sqlalchemy.orm import Mapper

__all__ = ["CompactRows", "sharing"]

T = TypeVar("T")

# Columns with more values have mostly different ones.
_MOST_SHARED: Final = 1_000


@dataclass(frozen=True, slots=True)
class CompactRows(Generic[T]):
    """The rows of a result.

    Attributes:
        names: the columns.
        make: makes the entity of a row.
    """

    names: Sequence[str]
    rows: Iterable[tuple[Any, ...]]
    make: Callable[[tuple[Any, ...]], T]


def sharing(
    mapper: Mapper[Any], names: Sequence[str]
) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """A function that makes a tuple of a row, and uses one object for equal values of a column."""
    columns = mapper.columns
    # Not of numbers: 1, 1.0 and 1.00 are equal.
    known: list[tuple[int, dict[Any, Any]]] = [
        (place, {})
        for place, name in enumerate(names)
        if name in columns and columns[name].type.python_type in (str, UUID, datetime)
    ]

    def share(row: Sequence[Any]) -> tuple[Any, ...]:
        values = list(row)
        for place, shared in known:
            value = values[place]
            if len(shared) < _MOST_SHARED:
                values[place] = shared.setdefault(value, value)
            else:
                values[place] = shared.get(value, value)
        return tuple(values)

    return share
