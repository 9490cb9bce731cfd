"""`LogWriter`: a buffered writer of log records."""

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

    signal = "logs"

    def write_log(self, record: LogRecord | Mapping[str, Any]) -> UUID:
        """Buffer a log record; returns its id.

        A record without an id gets a random one in this call. A retry uses the same id, so the
        record is stored once.

        Raises:
            ValidationError: the row is not valid. The error names the field, the value and the
                rule.
        """
        row = self._write(LOGS, record) or prepare_log(record)
        written: UUID = row.values[LOGS.position["id"]]
        return written

    def write_logs(self, records: Iterable[LogRecord | Mapping[str, Any]]) -> None:
        """Buffer log records.

        Raises:
            BatchError: lists the rows that are not valid. All other rows are buffered.
        """
        self._write_many(LOGS, records)
