"""`PostgresSpanExporter`: stores the spans of the OpenTelemetry SDK."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from observatory_storage.otel.outlet import StoringExporter
from observatory_storage.otel.plain_sdk_spans import plain_sdk_rows
from observatory_storage.otel.sdk_origins import Origins
from observatory_storage.otel.sdk_spans import span_message
from observatory_storage.otel.span_contents import SpanContents
from observatory_storage.otlp import message_types
from observatory_storage.otlp.traces import span_items
from observatory_storage.rows import PART
from observatory_storage.tables import SPANS
from observatory_storage.writers import Source, TraceWriter, WriterConfig

__all__ = ["PostgresSpanExporter"]


class PostgresSpanExporter(StoringExporter[TraceWriter], SpanExporter):
    """Stores spans of the OpenTelemetry SDK in PostgreSQL. Needs the extra ``otel``.

    Spans go into a buffer, and other threads write them to the database. So neither an export nor
    your application ever waits for the database. While the database is away, spans wait in the
    buffer, or in the spool if ``config`` names one. If the buffer is full, further spans are
    dropped, counted in `TraceWriter.write_stats`, and a warning is logged.

    What is stored equals what `ingest_traces` stores of the same spans. Instrumentations record
    nothing of what the exporter does.

    Example::

        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(PostgresSpanExporter(pool)))
        trace.set_tracer_provider(provider)

    Args:
        pool: the pool to write to. The default is a pool with the settings of the environment
            (``DATABASE_URL``), which all exporters of the process share. It connects on first use.
        config: the buffer, the spool and the payloads. ``on_full`` has no effect. The default
            flushes after one second, and buffers at most 50,000 rows.

    Raises:
        ConfigError: there is no pool, and a setting of the environment is missing or invalid.
        ValidationError: the pool or the configuration is none.
        StorageError: the directory of the spool cannot be used.
    """

    def __init__(self, pool: Source | None = None, config: WriterConfig | None = None) -> None:
        super().__init__(TraceWriter, pool, config, "spans")
        self._origins = Origins("spans")
        self._contents = SpanContents()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Buffer spans. Never raises an error.

        A span that cannot be stored is left out, and a warning names its field. The others are
        stored.

        Returns:
            ``FAILURE`` if the exporter is shut down, or if the buffer was full.
        """
        outlet = self._outlet
        with outlet.exporting() as is_open:
            if not is_open:
                return SpanExportResult.FAILURE
            if self._contents or outlet.writer.changes_rows:
                rows = self._rows_of_messages(spans)
            else:
                rows, others = self._plain_rows(spans)
                rows += self._rows_of_messages(others)
            stored = outlet.write(SPANS, rows)
        return SpanExportResult.SUCCESS if stored else SpanExportResult.FAILURE

    def _plain_rows(self, spans: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """The rows of plain spans, and the other spans."""
        own = [(span, span) for span in spans if isinstance(span, ReadableSpan)]
        others = [span for span in spans if not isinstance(span, ReadableSpan)]
        rows: list[Any] = []
        for group in self._origins.groups(own):
            remaining = iter(group.items)
            while part := list(islice(remaining, PART)):
                made = plain_sdk_rows(part, group)
                rows += [row for row in made if row is not None]
                others += [span for span, row in zip(part, made, strict=True) if row is None]
        return rows, others

    def _rows_of_messages(self, spans: Sequence[ReadableSpan]) -> list[Any]:
        """The rows of any spans, by way of messages of OTLP."""
        outlet = self._outlet
        make_rows = partial(span_items, as_mappings=outlet.writer.changes_rows)
        convert = self._with_contents if self._contents else span_message
        groups = self._origins.groups(outlet.messages(spans, convert))
        return outlet.mapped_rows(groups, make_rows)

    def _with_contents(self, span: ReadableSpan) -> message_types.Span:
        context = span.context
        return span_message(span, self._contents.take((context.trace_id, context.span_id)))
