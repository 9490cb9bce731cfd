"""Searches log records by attributes, newest first.

The newest records are read in order, which fills the page if the value is frequent. The rest is
searched in slices of time by the indexes on attributes, as words are (see `log_search`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select

from observatory_storage.models import LogRecord
from observatory_storage.repositories.logs.filters import LogFilters
from observatory_storage.repositories.logs.log_search import NEWEST_LOGS, LogSearch
from observatory_storage.repositories.reading.filter_fields import within
from observatory_storage.repositories.reading.pages import Keyset, Seek, Total
from observatory_storage.repositories.reading.partitioned_search import (
    PartitionedSearch,
    cuts_of_page,
)
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.reading.time_slices import moment_after

__all__ = ["AttributeLogSearch"]

# This many records are read in order first.
_WALKED: Final = 3_000


class AttributeLogSearch:
    """The records that match filters with attributes, newest first: a `pages.Search`.

    Args:
        in_order: finds them by reading records in order.
        in_slices: finds them by indexes.
    """

    keyset: Keyset = NEWEST_LOGS

    def __init__(
        self,
        reader: Reader,
        filters: LogFilters,
        in_order: PartitionedSearch[LogRecord],
        in_slices: LogSearch,
    ) -> None:
        self._reader = reader
        self._bounds = filters.start_time, filters.end_time
        self.query: Mapping[str, Any] = filters.query()
        self._in_order = in_order
        self._in_slices = in_slices

    def count(self, kind: Total) -> int:
        return self._in_order.count(kind)

    def rows(self, seek: Seek) -> Sequence[LogRecord]:
        """The records of a page: the nearest ones are read in order, the rest is searched."""
        edge = self._edge(seek)
        if edge is None:
            return self._in_order.rows(seek)
        start, end = self._bounds
        newer, older = (edge, end), (start, edge)
        near, far = (newer, older) if seek.descending else (older, newer)
        statement = self._in_order.statement.where(*within(LogRecord.timestamp, *near))
        found = list(replace(self._in_order, statement=statement, time_range=near).rows(seek))
        left = seek.row_limit - len(found)
        if left:
            found += self._in_slices.in_slices(replace(seek, row_limit=left), edge, *far)
        return found

    def _edge(self, seek: Seek) -> datetime | None:
        """The end of the part that is read in order; None if this part is the whole range."""
        time: Any = LogRecord.timestamp
        cut = cuts_of_page(self._reader, time, self._bounds, seek).next()
        near = (cut, None) if seek.descending else (None, cut)
        all_records = select(LogRecord).where(*within(time, *self._bounds), *within(time, *near))
        after = seek.of(all_records).with_only_columns(time).order_by(None).limit(None)
        in_order = after.order_by(time.desc() if seek.descending else time.asc())
        edge: datetime | None = self._reader.scalar(
            in_order.offset(_WALKED).limit(1), seek.parameters
        )
        if edge is None or seek.descending:
            return edge or cut
        return moment_after(edge)
