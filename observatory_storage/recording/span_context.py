"""Where a new span or log record belongs: the active span, and trace context of other processes.

OpenTelemetry is asked only if the application has imported it.
"""

from __future__ import annotations

import re
import sys
from contextvars import ContextVar
from typing import Any, Final, NamedTuple, Protocol

__all__ = [
    "ActiveSpan",
    "SpanContext",
    "active_span",
    "add_span",
    "attach",
    "current",
    "from_traceparent",
    "named_span",
    "opentelemetry_span",
    "restore",
    "restore_snapshot",
    "snapshot",
    "span_of_ids",
    "to_traceparent",
]

# https://www.w3.org/TR/trace-context/#traceparent-header
_TRACEPARENT: Final = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
    r"(?P<rest>-.*)?"
)
_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")
_SPAN_ID: Final = re.compile(r"[0-9a-f]{16}")
_NO_TRACE: Final = "0" * 32
_NO_SPAN: Final = "0" * 16
_SAMPLED: Final = 1


class SpanContext(NamedTuple):
    """What identifies a span everywhere: ids in lower-case hex, and the trace flags of W3C."""

    trace_id: str
    span_id: str
    flags: int = _SAMPLED


class ActiveSpan(Protocol):
    """A span that this package records, while it is the innermost of its context."""

    @property
    def context(self) -> SpanContext: ...
    @property
    def seen_in_opentelemetry(self) -> SpanContext | None:
        """OpenTelemetry's current span right after this one became active."""


current: Final[ContextVar[ActiveSpan | None]] = ContextVar("observatory_storage_span", default=None)


def active_span() -> SpanContext | None:
    """The innermost active span, of this package or of OpenTelemetry."""
    own, other = current.get(), opentelemetry_span()
    # If OpenTelemetry's span is another one than this package's span has found, it is inside.
    if own is None or (other is not None and other != own.seen_in_opentelemetry):
        return other
    return own.context


def opentelemetry_span() -> SpanContext | None:
    """OpenTelemetry's current span; None without OpenTelemetry or outside of spans."""
    api = _trace_api()
    if api is None:
        return None
    context = api.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return SpanContext(
        f"{context.trace_id:032x}", f"{context.span_id:016x}", int(context.trace_flags)
    )


def _trace_api() -> Any:
    """OpenTelemetry's module ``trace``, unless it is not imported or another thread imports it."""
    api = sys.modules.get("opentelemetry.trace")
    return api if hasattr(api, "use_span") else None


def attach(span: SpanContext) -> tuple[Any, Any] | None:
    """Make a span OpenTelemetry's current one, so that spans of instrumentations are its children.

    Does nothing unless the application has set up an SDK of OpenTelemetry.

    Returns:
        The context that was made current, and the one before it.
    """
    api = _trace_api()
    if api is None or isinstance(api.get_tracer_provider(), api.ProxyTracerProvider):
        return None
    from opentelemetry import context

    known = api.SpanContext(
        int(span.trace_id, 16),
        int(span.span_id, 16),
        is_remote=False,
        trace_flags=api.TraceFlags(span.flags),
    )
    before = context.get_current()
    inside = api.set_span_in_context(api.NonRecordingSpan(known), before)
    context.attach(inside)
    return inside, before


def restore(attached: tuple[Any, Any] | None, *, is_ours: bool) -> None:
    """Undo `attach`.

    Args:
        attached: what `attach` returned.
        is_ours: whether this is the context that it was called in, or a copy. What somebody has
            attached since and not detached is then undone too. In another context, nothing is
            undone if something else has become current.
    """
    if attached is not None:
        from opentelemetry import context

        inside, before = attached
        # Not `detach`: it complains where a generator is closed in another context.
        if is_ours or context.get_current() is inside:
            context.attach(before)


def snapshot() -> tuple[ActiveSpan | None, Any]:
    """What is active here, for `restore_snapshot`."""
    api: Any = sys.modules.get("opentelemetry.context")
    return current.get(), api.get_current() if hasattr(api, "get_current") else None


def restore_snapshot(active: tuple[ActiveSpan | None, Any]) -> None:
    """Make active what was active at a `snapshot`."""
    own, other = active
    current.set(own)
    if other is not None:
        sys.modules["opentelemetry.context"].attach(other)


def from_traceparent(header: str) -> SpanContext | None:
    """The span that a ``traceparent`` header names; None if it is malformed, as W3C wants it."""
    found = _TRACEPARENT.fullmatch(header.strip())
    if found is None or found["version"] == "ff" or (found["version"] == "00" and found["rest"]):
        return None
    if found["trace"] == _NO_TRACE or found["span"] == _NO_SPAN:
        return None
    return SpanContext(found["trace"], found["span"], int(found["flags"], 16))


def to_traceparent(span: SpanContext) -> str:
    """The ``traceparent`` header that names a span."""
    return f"00-{span.trace_id}-{span.span_id}-{span.flags & 0xFF:02x}"


def span_of_ids(trace_id: object, span_id: object) -> SpanContext | None:
    """A span by ids that a log record carries; None unless the trace id is one of W3C."""
    if not isinstance(trace_id, str) or trace_id == _NO_TRACE:
        return None
    if not _TRACE_ID.fullmatch(trace_id := trace_id.lower()):
        return None
    if isinstance(span_id, str) and _SPAN_ID.fullmatch(span_id := span_id.lower()):
        return SpanContext(trace_id, "" if span_id == _NO_SPAN else span_id)
    # Without a span, the record belongs to the trace as a whole.
    return SpanContext(trace_id, "")


def named_span(attributes: dict[str, Any]) -> SpanContext | None:
    """The span that a log record names as ``trace_id`` and ``span_id``, which it takes out."""
    span = span_of_ids(attributes.get("trace_id"), attributes.get("span_id"))
    if span is not None:
        del attributes["trace_id"]
        if span.span_id:
            del attributes["span_id"]
    return span


def add_span(row: dict[str, Any], span: SpanContext | None) -> None:
    """Set the columns of a log record that say in which span it was logged."""
    if span is not None:
        row["trace_id"], row["span_id"] = span.trace_id, span.span_id or None
        row["trace_flags"] = span.flags
