"""`TraceWriter`: a buffered writer of traces, spans and events."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from observatory_storage import ids, rows
from observatory_storage.config import SamplingConfig
from observatory_storage.errors import ValidationError
from observatory_storage.llm import LlmSpan, columns_of_attributes
from observatory_storage.models import Trace, TraceEvent, TraceSpan
from observatory_storage.tables import EVENTS, SPANS, TRACES
from observatory_storage.writers.buffer import Buffer
from observatory_storage.writers.buffered_writer import BufferedWriter
from observatory_storage.writers.sampling_buffer import SamplingBuffer
from observatory_storage.writers.tail_sampling import TailSampling
from observatory_storage.writers.trace_decisions import decisions_of

__all__ = ["TraceWriter"]

_SPAN_TRACE_ID, _SPAN_ID, _START, _START_NS = SPANS.positions(
    "trace_id", "span_id", "start_time", "start_ns"
)
_EVENT_TRACE_ID, _EVENT_SPAN_ID, _POSITION = EVENTS.positions("trace_id", "span_id", "position")


def _configured(settings: SamplingConfig) -> TailSampling | None:
    """The sampling of a pool's configuration."""
    return None if settings.share is None else TailSampling(**settings.model_dump())


class TraceWriter(BufferedWriter):
    """Buffers traces, spans and events. A span, its events and its trace are committed together.

    Rows are ORM instances or mappings with the columns' names.
    """

    signal = "traces"

    def _begin(self) -> None:
        super()._begin()
        self._positions_lock = threading.RLock()

    def _new_buffer(self) -> Buffer:
        sampling = self._config.sampling or _configured(self._source.config.sampling)
        if sampling is None:
            return super()._new_buffer()
        decisions = decisions_of(self._source, sampling)
        return SamplingBuffer(self._bounds(), decisions, self._recorder.counts)

    def write_trace(self, trace: Trace | Mapping[str, Any]) -> UUID:
        """Buffer the columns of a trace that are not computed from spans; return its id.

        Raises:
            ValidationError: the row is not valid. The error names the field, the value and the
                rule.
        """
        row = self._write(TRACES, trace) or rows.prepare_trace(trace)
        written: UUID = row.values[TRACES.position["id"]]
        return written

    def write_span(self, span: TraceSpan | Mapping[str, Any]) -> None:
        """Buffer a span with its ``events``. A span sent again replaces the stored one.

        If ``events`` is given, even empty, it replaces the stored events.

        Raises:
            ValidationError: the row is not valid. The error names the field, the value and the
                rule.
        """
        self._write(SPANS, span)

    def write_spans(self, spans: Iterable[TraceSpan | Mapping[str, Any]]) -> None:
        """Buffer spans.

        Raises:
            BatchError: lists the spans that are not valid. All other spans are buffered.
        """
        self._write_many(SPANS, spans)

    def write_event(self, event: TraceEvent | Mapping[str, Any]) -> None:
        """Buffer an event without its span.

        The event names its span by ``trace_id``, ``span_id`` and ``span_start_time``, and has a
        ``position`` among the events of the span. ``span_start_time`` and ``position`` may be
        omitted while the span is in this buffer.

        Raises:
            ValidationError: the row is not valid. The error names the field, the value and the
                rule.
        """
        # Two threads that write events of one span must not take the same position. The buffer's
        # lock is not enough, because it is released while an event waits for room.
        with self._positions_lock:
            self._write(EVENTS, event, self._prepare_event)

    def write_span_from_llm(self, call: LlmSpan) -> TraceSpan:
        """Buffer the span of a call to a language model, and return the span.

        Raises:
            ValidationError: the row is not valid. The error names the field, the value and the
                rule.
        """
        if not isinstance(call, LlmSpan):
            raise ValidationError("call", call, "must be LlmSpan")
        span = call.to_span()
        text = ids.trace_text(call.trace_id or span.trace_id)

        def prepare_changed(row: TraceSpan | Mapping[str, Any]) -> rows.Row:
            # Redaction and rules may have changed the attributes and the trace id.
            prepared = rows.prepare_span(row)
            same = prepared.values[_SPAN_TRACE_ID] == ids.trace_uuid(text)
            return prepared._replace(trace_text=text) if same else prepared

        def prepare(row: TraceSpan) -> rows.Row:
            if type(call) is LlmSpan:
                return rows.prepare_llm_span(row, text)
            return rows.prepare_span(row, has_facts=True, trace_text=text)

        if self.changes_rows:
            self._write(SPANS, span, prepare_changed, columns_of_attributes(call, span))
        else:
            self._write(SPANS, span, prepare)
        return span

    def _prepare_event(self, event: TraceEvent | Mapping[str, Any]) -> rows.Row:
        values = rows.as_mapping(event, TraceEvent)
        trace_id, span_id = values.get("trace_id"), values.get("span_id")
        lacks_start = values.get("span_start_time") is None
        if (lacks_start or values.get("position") is None) and trace_id and span_id:
            self._complete(values, (ids.trace_uuid(trace_id), ids.span_id(span_id)), lacks_start)
        return rows.prepare_event(values)

    def _complete(self, values: dict[str, Any], span: tuple[UUID, str], lacks_start: bool) -> None:
        """Complete the event's key from its span, if the span is buffered."""
        following = 0
        with self._buffer.lock:
            if self._buffer.is_dropped(span[0].int):  # then the event is dropped as well
                for name, value in (("span_start_time", datetime.now(UTC)), ("position", 0)):
                    if values.get(name) is None:
                        values[name] = value
                return
            for row in self._buffer.newest_first():
                buffered = row.values
                if row.table == EVENTS.name:
                    if (buffered[_EVENT_TRACE_ID], buffered[_EVENT_SPAN_ID]) == span:
                        following = max(following, buffered[_POSITION] + 1)
                elif row.table == SPANS.name:
                    if (buffered[_SPAN_TRACE_ID], buffered[_SPAN_ID]) != span:
                        continue
                    if lacks_start:
                        values["span_start_time"] = buffered[_START]
                        values["span_start_ns"] = buffered[_START_NS]
                    if values.get("position") is None:
                        taken = (event[_POSITION] + 1 for event in row.events or ())
                        values["position"] = max(following, *taken, 0)
                    return
