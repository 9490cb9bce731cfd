"""Which of some traces or spans, whose ids are known, match filters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from observatory_storage.models import Trace
from observatory_storage.repositories.reading.known_rows import matching_keys
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.traces.filters import SpanFilters, TraceFilters
from observatory_storage.repositories.traces.framed_content import FramedContent, hours_of
from observatory_storage.repositories.traces.json_conditions import SpanKey
from observatory_storage.repositories.traces.trace_statements import probed
from observatory_storage.tables import SPANS

__all__ = ["matching_span_keys", "matching_traces"]


def matching_traces(reader: Reader, ids: Sequence[UUID], filters: TraceFilters) -> list[Trace]:
    """The stored traces of these ids that match, in the order of the ids."""
    found = sa.select(Trace).where(Trace.id.in_(ids))
    if filters.parameters():
        conditions = filters.in_sql(by_trace=True)
        framed = FramedContent(reader.session, filters)
        if framed.is_any:
            conditions = framed.resolved(conditions)
        found = found.where(*conditions.implied(), *conditions.of_no_span())
        found = probed(found, Trace, conditions)
    by_id = {trace.id: trace for trace in reader.entities(found)}
    return [by_id[key] for key in ids if key in by_id]


def matching_span_keys(
    reader: Reader, keys: Sequence[tuple[Any, ...]], filters: SpanFilters
) -> set[tuple[Any, ...]]:
    """The keys of the stored spans of these keys that match."""
    conditions = filters.in_sql()
    framed = FramedContent(reader.session, filters)
    if framed.is_any:
        spans = [SpanKey(**dict(zip(SPANS.key, key, strict=True))) for key in keys]
        conditions = framed.resolved(conditions, hours_of(spans))
    return matching_keys(reader, SPANS, keys, conditions.all())
