"""Computes the LLM columns of stored spans again, after their names or the rules have changed.

Spans are read in the order of their start. Those that differ are read again in a transaction that
has locked the rows of their traces, as writers do, and are updated there. So it can run beside
writers and beside itself, and can be repeated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from observatory_storage.commits import Commit, changes_of_spans
from observatory_storage.errors import translated
from observatory_storage.pricing import PriceTable
from observatory_storage.serialization import Result
from observatory_storage.storing.fact_changes import SpanKey, changes_of, update_facts
from observatory_storage.storing.span_filling import fill_from_stored_logs
from observatory_storage.storing.span_walk import SpanWalk
from observatory_storage.storing.stored_usage import decide_traces, mark_unsettled
from observatory_storage.storing.trace_recompute import recompute_traces, reports_usage
from observatory_storage.storing.trace_upsert import locked_traces
from observatory_storage.storing.transaction import Source, retrying
from observatory_storage.tables import SPANS, TRACES

__all__ = ["RefreshedFacts", "refresh_facts"]

_SPANS: Final = SPANS.table
_TRACES: Final = TRACES.table
_SPANS_AT_A_TIME: Final = 500
_SELECT: Final = sa.select(
    *(_SPANS.c[name] for name in SpanKey._fields),
    reports_usage(_SPANS.c).label("reports_usage"),
    _TRACES.c.usage_span_count,
).join_from(_SPANS, _TRACES, _TRACES.c.id == _SPANS.c.trace_id, isouter=True)


@dataclass(frozen=True, slots=True)
class RefreshedFacts(Result):
    """The result of `StoragePool.refresh_facts`.

    Attributes:
        spans: the number of spans that were read.
        changed_spans: the number of spans whose columns have changed.
        next_start: the start of the next call, which continues there; None at the end.
    """

    spans: int = 0
    changed_spans: int = 0
    next_start: datetime | None = None


def refresh_facts(
    source: Source,
    start: datetime | None = None,
    end: datetime | None = None,
    *,
    max_spans: int | None = None,
    progress: Callable[[RefreshedFacts], object] | None = None,
) -> RefreshedFacts:
    """Refresh the spans that start within [start, end), in transactions of at most 500 spans.

    Args:
        source: the pool.
        start: the first start; None for the oldest span.
        end: the first start that is left out; None for no bound.
        max_spans: stop after so many spans, and those that start with the last one.
        progress: is called after each transaction.

    Raises:
        StorageError: the database could not be used. Spans that were refreshed before stay so.
        ValidationError: `max_spans` is not a positive integer.
    """
    walk = SpanWalk(_SELECT, start, end, page_size=_SPANS_AT_A_TIME, max_spans=max_spans)
    changed = 0
    while True:
        prices = source.prices.table()
        look = partial(_look, source, walk.page(), prices)
        keys, different, uncounted = retrying(source.config, look)
        if not keys:
            return RefreshedFacts(walk.spans, changed, walk.next_start)
        if different or uncounted:
            changed += retrying(
                source.config, partial(_refresh, source, different, uncounted, prices)
            )
        reached = walk.passed(keys)
        if progress is not None:
            progress(RefreshedFacts(walk.spans, changed, reached))


def _look(
    source: Source, page: sa.Select[Any], prices: PriceTable | None
) -> tuple[list[SpanKey], list[SpanKey], set[UUID]]:
    """The next spans, those of them that differ, and the traces that do not know their usage.

    Earlier versions did not count the spans of a trace that report usage.
    """
    with translated(), source.engine.connect() as connection:
        rows = connection.execute(page).all()
        keys = [SpanKey(*row[: len(SpanKey._fields)]) for row in rows]
        different = [change.key for change in changes_of(connection, keys, prices)]
    reporting = Counter(row.trace_id for row in rows if row.reports_usage)
    known = {row.trace_id: row.usage_span_count for row in rows}
    # A span that was added without a writer may have no trace.
    uncounted = {
        trace_id
        for trace_id, count in reporting.items()
        if known[trace_id] is not None and count > known[trace_id]
    }
    return keys, different, uncounted


def _refresh(
    source: Source,
    keys: Sequence[SpanKey],
    uncounted: Collection[UUID],
    prices: PriceTable | None,
) -> int:
    """Refresh spans that differ, and settle their traces; return how many spans changed."""
    trace_ids = {key.trace_id for key in keys} | {*uncounted}
    with (
        translated(),
        source.commits.telling() as telling,
        source.engine.begin() as connection,
    ):
        locked_traces(connection, trace_ids)
        changes = list(changes_of(connection, keys, prices))
        update_facts(connection, changes)
        changed = {change.key.trace_id for change in changes} | {*uncounted}
        recompute_traces(connection, changed)
        traces = locked_traces(connection, changed)
        fill_from_stored_logs(connection, traces)
        decide_traces(connection, traces)
        mark_unsettled(connection, {change.key.trace_id for change in changes if change.names_call})
        if changed:
            telling.announce(connection, Commit(changes=changes_of_spans(connection)))
    return len(changes)
