"""The context in which exporters work: nothing that happens in it is recorded, nor exported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from opentelemetry import trace
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from observatory_storage.suppression import suppress_all

__all__ = ["export_context", "is_of_an_export"]

# Batch processors strip a log record of its context, but keep what it took from the active span.
# No sampled flag and no ids: to everybody else, no span is active. It is recognised by identity.
_MARK: Final = TraceFlags()
_NO_SPAN: Final = NonRecordingSpan(SpanContext(0, 0, is_remote=False, trace_flags=_MARK))


@contextmanager
def export_context() -> Iterator[None]:
    """Suppress what instrumentations record in this thread, and mark the log records made in it."""
    with suppress_all(), trace.use_span(_NO_SPAN):
        yield


def is_of_an_export(record: ReadableLogRecord) -> bool:
    """Whether a log record was made while an exporter worked, by whatever logger.

    To export it would make further ones, forever.
    """
    return record.log_record.trace_flags is _MARK
