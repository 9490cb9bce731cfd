"""Which of some log records, whose keys are known, match filters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from observatory_storage.repositories.logs.filters import LogFilters
from observatory_storage.repositories.logs.framed_records import FramedRecords, LogKey
from observatory_storage.repositories.reading.known_rows import matching_keys
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.tables import LOGS

__all__ = ["matching_record_keys"]


def matching_record_keys(
    reader: Reader, keys: Sequence[tuple[Any, ...]], filters: LogFilters
) -> set[tuple[Any, ...]]:
    """The keys of the stored records of these keys that match."""
    known = [LogKey(**dict(zip(LOGS.key, key, strict=True))) for key in keys]
    conditions = FramedRecords(reader.session, filters).resolved(known)
    return matching_keys(reader, LOGS, keys, conditions)
