"""The tail of the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.orm.interfaces import ORMOption

from observatory_storage.models import LogRecord
from observatory_storage.repositories.logs.filters import LogFilters
from observatory_storage.repositories.logs.framed_records import FramedRecords
from observatory_storage.repositories.reading.filter_fields import Conditions
from observatory_storage.repositories.reading.pages import Page
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.reading.sharded_tail import tail_of
from observatory_storage.repositories.reading.tail import TailedRows

__all__ = ["poll_records"]

_RECORDS: Final = TailedRows(
    "tail", LogRecord, (LogRecord.timestamp, LogRecord.timestamp_ns, LogRecord.id)
)


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Filters that also choose records whose values in frames may match."""

    filters: LogFilters
    framed: FramedRecords

    @property
    def limit(self) -> int:
        return self.filters.limit

    def query(self) -> dict[str, Any]:
        return self.filters.query()

    def conditions(self) -> Conditions:
        return self.framed.conditions()


def poll_records(
    reader: Reader, cursor: str | None, filters: LogFilters, options: Sequence[ORMOption]
) -> Page[LogRecord]:
    """The records that settled since the cursor's poll; see `LogRepository.tail`."""
    tail = tail_of(reader, _RECORDS)
    framed = FramedRecords(reader.session, filters)
    if not framed.is_any:
        return tail.poll(cursor, filters, options)
    return tail.poll(cursor, _Candidates(filters, framed), options, framed.decided)
