"""The tails of spans and of traces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy.orm import load_only
from sqlalchemy.orm.interfaces import ORMOption

from observatory_storage.models import Trace, TraceSpan
from observatory_storage.repositories.reading.filter_fields import Conditions
from observatory_storage.repositories.reading.pages import Page
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.reading.sharded_tail import tail_of
from observatory_storage.repositories.reading.tail import TailedRows
from observatory_storage.repositories.traces.filters import SpanFilters, TraceFilters
from observatory_storage.repositories.traces.known_traces import matching_span_keys, matching_traces
from observatory_storage.tables import SPANS

__all__ = ["poll_spans", "poll_traces"]

_SPANS: Final = TailedRows(
    "tail_spans",
    TraceSpan,
    (TraceSpan.start_time, TraceSpan.start_ns, TraceSpan.trace_id, TraceSpan.span_id),
)
_TRACES: Final = replace(_SPANS, name="tail_traces")
_ONLY_KEY: Final = (load_only(*_SPANS.key, raiseload=True),)


@dataclass(frozen=True, slots=True)
class _WithoutContent:
    """Filters of spans without the conditions on content, which frames may decide."""

    filters: SpanFilters

    @property
    def limit(self) -> int:
        return self.filters.limit

    def query(self) -> dict[str, Any]:
        return self.filters.query()

    def conditions(self) -> Conditions:
        return replace(self.filters, text=None, contains=None).conditions()


@dataclass(frozen=True, slots=True)
class _AnySpan:
    """No condition on spans, for the tail of the traces that filters choose."""

    filters: TraceFilters

    @property
    def limit(self) -> int:
        return self.filters.limit

    def query(self) -> dict[str, Any]:
        return self.filters.query()

    def conditions(self) -> Conditions:
        return []


def poll_spans(
    reader: Reader, cursor: str | None, filters: SpanFilters, options: Sequence[ORMOption]
) -> Page[TraceSpan]:
    """The spans that settled since the cursor's poll; see `TraceRepository.tail_spans`."""
    tail = tail_of(reader, _SPANS)
    if not filters.searches_content():
        return tail.poll(cursor, filters, options)

    def matching(spans: Sequence[TraceSpan]) -> Sequence[TraceSpan]:
        keys = [tuple(getattr(span, name) for name in SPANS.key) for span in spans]
        found = matching_span_keys(reader, keys, filters) if keys else ()
        return [span for span, key in zip(spans, keys, strict=True) if key in found]

    wanted = _WithoutContent(filters)
    if cursor is not None:
        return tail.poll(cursor, wanted, options, matching)
    # If few spans match, going on until the page is full would read all that there are.
    page = tail.poll(None, wanted, options)
    return replace(page, rows=tuple(matching(page.rows)))


def poll_traces(reader: Reader, cursor: str | None, filters: TraceFilters) -> Page[Trace]:
    """The matching traces of the spans that settled since the cursor's poll."""
    page = tail_of(reader, _TRACES).poll(cursor, _AnySpan(filters), _ONLY_KEY)
    ids = list(dict.fromkeys(span.trace_id for span in page))
    traces = matching_traces(reader, ids, filters) if ids else []
    return Page(tuple(traces), next=page.next)
