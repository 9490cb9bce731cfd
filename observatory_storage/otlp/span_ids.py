"""The ids of a span of OTLP, in JSON or in protobuf."""

from __future__ import annotations

import re
from typing import Any, Final

from observatory_storage.errors import ValidationError
from observatory_storage.otlp import protojson

__all__ = ["NO_SPAN", "ids_of"]

NO_SPAN: Final = "0" * 16
_NO_TRACE: Final = "0" * 32
# The ids of a trace and of a span, and of its parent if it has one.
_PLAIN_IDS: Final = re.compile(r"[0-9a-f]{48}(?:[0-9a-f]{16})?")


def ids_of(span: Any) -> tuple[str, str, str]:
    """The ids of a span's trace, of the span, and of its parent, which is empty if absent.

    Raises:
        ValidationError: an id is not valid.
    """
    trace_id, span_id, parent = span.trace_id, span.span_id, span.parent_span_id
    if type(trace_id) is bytes:
        trace_id, span_id, parent = trace_id.hex(), span_id.hex(), parent.hex()
    # One match for all three costs a third of a check of each.
    if (
        len(trace_id) == len(_NO_TRACE)
        and len(span_id) == len(NO_SPAN)
        and _PLAIN_IDS.fullmatch(f"{trace_id}{span_id}{parent}")
        and trace_id != _NO_TRACE
        and span_id != NO_SPAN
    ):
        return trace_id, span_id, parent
    return (
        _required_id(span.trace_id, "traceId", _NO_TRACE),
        _required_id(span.span_id, "spanId", NO_SPAN),
        protojson.identifier(span.parent_span_id, "parentSpanId", len(NO_SPAN)),
    )


def _required_id(value: Any, field: str, zeros: str) -> str:
    given = protojson.identifier(value, field, len(zeros))
    if not given or given == zeros:
        raise ValidationError(field, given, f"must be {len(zeros)} hex digits, not all zeros")
    return given
