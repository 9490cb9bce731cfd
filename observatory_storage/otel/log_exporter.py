"""`PostgresLogExporter`: stores the log records of the OpenTelemetry SDK."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult

from observatory_storage.otel.export_context import is_of_an_export
from observatory_storage.otel.outlet import StoringExporter
from observatory_storage.otel.sdk_logs import log_message
from observatory_storage.otel.sdk_origins import Origins
from observatory_storage.otlp.logs import log_items
from observatory_storage.otlp.resource_scope import Group, Item
from observatory_storage.tables import LOGS
from observatory_storage.writers import LogWriter, Source, WriterConfig

__all__ = ["PostgresLogExporter"]

_OWN = "observatory_storage"


class PostgresLogExporter(StoringExporter[LogWriter], LogRecordExporter):
    """Stores log records of the OpenTelemetry SDK in PostgreSQL. Needs the extra ``otel``.

    What is stored equals what `ingest_logs` stores of the same records. Records that any logger
    makes while an exporter stores, and all of this package's own loggers
    (``observatory_storage.…``), are left out: to store what is said about storing would never end.
    Otherwise the exporter works as `PostgresSpanExporter` does.

    Example::

        provider = LoggerProvider()
        provider.add_log_record_processor(BatchLogRecordProcessor(PostgresLogExporter(pool)))
        set_logger_provider(provider)

    Args:
        pool: the pool to write to; see `PostgresSpanExporter`.
        config: the buffer, the spool and the payloads; see `PostgresSpanExporter`.

    Raises:
        ConfigError: there is no pool, and a setting of the environment is missing or invalid.
        ValidationError: the pool or the configuration is none.
        StorageError: the directory of the spool cannot be used.
    """

    def __init__(self, pool: Source | None = None, config: WriterConfig | None = None) -> None:
        super().__init__(LogWriter, pool, config, "log records")
        self._origins = Origins("logRecords")

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Buffer log records. Never raises an error.

        A record that cannot be stored is left out, and a warning names its field. The others are
        stored.

        Returns:
            ``FAILURE`` if the exporter is shut down, or if the buffer was full.
        """
        outlet = self._outlet
        with outlet.exporting() as is_open:
            if not is_open:
                return LogRecordExportResult.FAILURE
            others = [one for one in batch if not (is_of_an_export(one) or _is_own(one))]
            groups = self._origins.groups(outlet.messages(others, log_message))
            stored = outlet.write(LOGS, outlet.mapped_rows(groups, _items))
        return LogRecordExportResult.SUCCESS if stored else LogRecordExportResult.FAILURE


def _items(group: Group) -> Iterator[Item]:
    # Equal records get ordinals, and records of two groups are never equal.
    return log_items([group])


def _is_own(record: ReadableLogRecord) -> bool:
    # A `logging.handlers.QueueHandler` may have moved it out of the context of the export.
    scope = record.instrumentation_scope
    name = "" if scope is None else scope.name
    return name.startswith(_OWN) and (len(name) == len(_OWN) or name[len(_OWN)] == ".")
