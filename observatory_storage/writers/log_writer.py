"""`LogWriter`: log records, buffered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from observatory_storage.models import LogRecord
from observatory_storage.rows import prepare_log
from observatory_storage.tables import LOGS
from observatory_storage.writers.buffered_writer import BufferedWriter

__all__ = ["LogWriter"]


class LogWriter(BufferedWriter):
    """Buffers log records. Rows are ORM instances or mappings by column names."""

    def write_log(self, record: LogRecord | Mapping[str, Any]) -> UUID:
        """Buffer a log record; returns its id.

        A record without an id gets a random one at this call, so that a retry writes it once.

        Raises:
            ValidationError: names the field, the value and the rule.
        """
        row = self._write(LOGS, record) or prepare_log(record)
        written: UUID = row.values[LOGS.position["id"]]
        return written

    def write_logs(self, records: Iterable[LogRecord | Mapping[str, Any]]) -> None:
        """Buffer log records.

        Raises:
            BatchError: lists those that are not valid; all others are taken.
        """
        self._write_many(LOGS, records)
