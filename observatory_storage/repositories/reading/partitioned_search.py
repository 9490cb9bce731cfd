"""Lists of the rows of a partitioned table in the order of its time column."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import Select

from observatory_storage.repositories.reading.filter_fields import within
from observatory_storage.repositories.reading.pages import Keyset, Seek, Total
from observatory_storage.repositories.reading.partition_slices import (
    Cuts,
    cuts_of,
    through_partitions,
)
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.reading.span_days import Range, within_ranges

__all__ = ["Bounds", "PartitionedSearch", "cuts_of_page"]

T = TypeVar("T")
Bounds = tuple[datetime | None, datetime | None]


@dataclass(frozen=True, slots=True)
class PartitionedSearch(Generic[T]):
    """A list that one statement finds, slice by slice of the partitions: a `pages.Search`.

    Attributes:
        keyset: its first column is the one by which the table is partitioned.
        query: the values that tell this query's cursors from those of other queries on the same
            list.
        time_range: the bounds that the statement has, so that no slice lies outside.
        parameters: values of the statement's bind parameters.
        days: finds the days on which rows may match, for the last slice; None if they are not
            known.
    """

    reader: Reader
    keyset: Keyset
    statement: Select[T]
    query: Mapping[str, Any]
    time_range: Bounds = (None, None)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    days: Callable[[], Sequence[Range] | None] = lambda: None

    def rows(self, seek: Seek) -> Sequence[T]:
        time: Any = self.keyset.columns[0]

        cuts = cuts_of_page(self.reader, time, self.time_range, seek)

        def find(low: datetime | None, high: datetime | None, row_limit: int) -> Sequence[T]:
            bounds = within(time, low, high)
            is_last = (low if seek.descending else high) is None
            if is_last and not cuts.is_one and (days := self.days()) is not None:
                bounds.append(within_ranges(time, days))
            statement = seek.of(self.statement.where(*bounds))
            values = {**self.parameters, **seek.parameters, "row_limit": row_limit}
            return self.reader.entities(statement, values)

        return through_partitions(cuts, seek.row_limit, find, descending=seek.descending)

    def count(self, kind: Total) -> int:
        return self.reader.count(self.statement, kind, self.parameters)


def cuts_of_page(reader: Reader, time: Any, time_range: Bounds, seek: Seek) -> Cuts:
    """The cuts of a page whose order begins with this column.

    Args:
        time: the column by which its table is partitioned.
        time_range: the bounds of the list.
    """
    start, end = time_range
    if seek.key is not None:
        moment = seek.key[0]
        if seek.descending:
            end = moment if end is None else min(end, moment)
        else:
            start = moment if start is None else max(start, moment)
    return cuts_of(reader, time.class_, start, end, descending=seek.descending)
