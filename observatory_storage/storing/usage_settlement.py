"""Settles usage over traces: calls that spans of several traces report, and large traces.

Writers mark the traces that may have such calls. A settlement looks only at these, and at the
traces that share response ids with them. It locks all of them in the order of their ids, as writers
do, and decides from what the spans report. So it can run at any time, also twice at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, bindparam

from observatory_storage.changed_spans import noted_changes
from observatory_storage.commits import Commit, changes_of_spans
from observatory_storage.distribution import is_sharded
from observatory_storage.errors import ValidationError, translated
from observatory_storage.serialization import Result
from observatory_storage.storing.span_filling import fill_from_stored_logs
from observatory_storage.storing.stored_usage import StoredSpan, read_spans, update_usage
from observatory_storage.storing.trace_locks import lock_rows
from observatory_storage.storing.trace_recompute import recompute_traces, reports_usage
from observatory_storage.storing.trace_upsert import TraceSummary
from observatory_storage.storing.transaction import Source, retrying
from observatory_storage.storing.usage_once import MOST_SPANS_OF_A_CALL, ReportingSpan, count_once
from observatory_storage.tables import SPANS, TRACES

__all__ = ["SettledUsage", "settle_usage"]

_SPANS: Final = SPANS.table
_TRACES: Final = TRACES.table
_TRACES_AT_A_TIME: Final = 100
# Traces that share a response id, but not a call, are corrected in so many at a time.
_MOST_OF_AN_ID: Final = 500
_WINDOW: Final = timedelta(days=1)
_MOST_PASSES: Final = 8


@dataclass(frozen=True, slots=True)
class SettledUsage(Result):
    """The result of `StoragePool.settle_usage`.

    Attributes:
        traces: the number of marked traces that were settled.
        changed_traces: the number of traces whose totals changed, including traces that share a
            call with a marked one.
    """

    traces: int = 0
    changed_traces: int = 0


def settle_usage(source: Source, max_traces: int | None = None) -> SettledUsage:
    """Settle the traces that are marked, in transactions of a hundred traces.

    Traces that are marked meanwhile are left for the next call.

    Args:
        source: the pool.
        max_traces: settle at most so many.

    Raises:
        StorageError: the database could not be used. Traces that were settled before stay settled.
        ValidationError: `max_traces` is not a positive integer.
    """
    if max_traces is not None and (type(max_traces) is not int or max_traces < 1):
        raise ValidationError("max_traces", max_traces, "must be a positive integer or None")
    traces = changed = 0
    place: tuple[datetime, UUID] | None = None
    with translated(), source.engine.connect() as connection:
        end = connection.execute(_LAST_MARK).scalar()
    while end is not None and (max_traces is None or traces < max_traces):
        limit = _TRACES_AT_A_TIME if max_traces is None else max_traces - traces
        with translated(), source.engine.connect() as connection:
            marked = _marked(connection, place, end, min(limit, _TRACES_AT_A_TIME))
        if not marked:
            break
        batch = _Batch([trace_id for _, trace_id in marked])
        changed += retrying(source.config, partial(_settled, source, batch))
        traces += len(marked)
        place = marked[-1]
    return SettledUsage(traces, changed)


_LAST_MARK: Final = sa.select(sa.func.max(_TRACES.c.unsettled_since))


def _marked(
    connection: Connection, place: tuple[datetime, UUID] | None, end: datetime, limit: int
) -> list[tuple[datetime, UUID]]:
    mark, trace_id = _TRACES.c.unsettled_since, _TRACES.c.id
    wanted = sa.select(mark, trace_id).where(mark <= end).order_by(mark, trace_id).limit(limit)
    if place is not None:
        wanted = wanted.where(sa.tuple_(mark, trace_id) > place)
    return [(since, marked) for since, marked in connection.execute(wanted)]


@dataclass
class _Batch:
    """Marked traces, and what is known of the traces that share response ids with them.

    Attributes:
        marked: the marked traces.
        others: traces that have spans with the same response ids.
        shared_ids: response ids that more spans have than report one call.
    """

    marked: Collection[UUID]
    others: set[UUID] = field(default_factory=set)
    shared_ids: set[str] = field(default_factory=set)


def _settled(source: Source, batch: _Batch) -> int:
    """Settle a batch; return how many traces changed."""
    for _ in range(_MOST_PASSES):
        with (
            translated(),
            source.commits.telling() as telling,
            source.engine.begin() as connection,
        ):
            changed = _settle(connection, batch)
            # Traces that were found only now may come before the locked ones. Locks out of order
            # could deadlock, so the transaction ends, and the next one locks all of them.
            if changed is None:
                connection.rollback()
            elif changed or noted_changes(connection):  # users may be filled without new totals
                telling.announce(connection, Commit(changes=changes_of_spans(connection)))
        if changed is not None:
            return changed
    return 0  # a chain of calls that grows all the time; the traces stay marked


def _settle(connection: Connection, batch: _Batch) -> int | None:
    """Settle a batch; None if other traces were found that have to be locked as well."""
    wanted = sorted({*batch.marked, *batch.others}, key=lambda trace_id: trace_id.int)
    locked = lock_rows(connection, _LOCK, wanted)
    unsettled = {row.id for row in locked if row.unsettled_since is not None} & {*batch.marked}
    traces = [TraceSummary(*row[: len(TraceSummary._fields)]) for row in locked if row.span_count]
    fill_from_stored_logs(connection, [trace for trace in traces if trace.id in unsettled])
    stored = read_spans(connection, traces)
    spans = [span.reporting for span in stored]
    counted, calls = count_once(spans, shared_ids=batch.shared_ids)
    names = _Names()
    for span in spans:
        if span.trace in unsettled:
            names.add(span)
    # A call of a marked trace, and the calls with response ids of its spans.
    calls = [
        call
        for call in calls
        if any(
            spans[index].trace in unsettled or spans[index].response_id in names for index in call
        )
    ]
    for call in calls:
        for index in call:
            names.add(spans[index])
    if not _find_others(connection, batch, names):
        return None
    decided = {index for call in calls for index in call}
    decided.update(index for index, span in enumerate(spans) if span.trace in unsettled)
    changed = _update(connection, stored, sorted(decided), counted)
    connection.execute(_SETTLE, {"ids": list(unsettled)})
    return changed


class _Names:
    """Response ids, with the range of times in which other spans of their calls start."""

    def __init__(self) -> None:
        self.starts: defaultdict[str, list[datetime]] = defaultdict(list)

    def __contains__(self, response_id: object) -> bool:
        return response_id in self.starts

    def add(self, span: ReportingSpan) -> None:
        if span.response_id is not None:
            self.starts[span.response_id].append(span.start_time)


def _find_others(connection: Connection, batch: _Batch, names: _Names) -> bool:
    """Look for other traces with these response ids; whether nothing new was found."""
    if not names.starts:
        return True
    starts = names.starts.values()
    froms = [min(of_one) - _WINDOW for of_one in starts]
    tos = [max(of_one) + _WINDOW for of_one in starts]
    given: dict[str, Any] = {"names": list(names.starts), "froms": froms, "tos": tos}
    given |= {"earliest": min(froms), "latest": max(tos)}
    found: defaultdict[str, list[sa.Row[Any]]] = defaultdict(list)
    finding = _WITH_NAMES_ON_SHARDS if is_sharded(connection) else _WITH_NAMES
    for row in connection.execute(finding, given):
        found[row.response_id].append(row)
    known = {*batch.marked, *batch.others}
    shared_before = len(batch.shared_ids)
    for response_id, rows in found.items():
        if len(rows) > MOST_SPANS_OF_A_CALL:
            batch.shared_ids.add(response_id)
            # Decided as spans of one call before there were so many.
            batch.others.update(row.trace_id for row in rows if row.is_kept_apart)
        else:
            batch.others.update(row.trace_id for row in rows)
    return known >= batch.others and len(batch.shared_ids) == shared_before


def _update(
    connection: Connection,
    stored: Sequence[StoredSpan],
    decided: Iterable[int],
    counted: dict[int, Any],
) -> int:
    indexes = list(decided)
    usage = {place: counted[index] for place, index in enumerate(indexes) if index in counted}
    changed = update_usage(connection, [stored[index] for index in indexes], usage)
    recompute_traces(connection, changed)
    return len(changed)


_ids: Final = bindparam("ids", type_=sa.ARRAY(_TRACES.c.id.type))
_LOCK: Final = (
    sa.select(*(_TRACES.c[column] for column in TraceSummary._fields), _TRACES.c.unsettled_since)
    .where(_TRACES.c.id == sa.func.any(_ids))
    .order_by(_TRACES.c.id)
    .with_for_update(key_share=True)
)
_SETTLE: Final = (
    sa.update(_TRACES).where(_TRACES.c.id == sa.func.any(_ids)).values(unsettled_since=None)
)


def _finding_names(*, is_sharded: bool) -> Any:
    spans = _SPANS.c
    time = spans.start_time.type
    name = (
        sa.func.unnest(
            bindparam("names", type_=sa.ARRAY(sa.Text())),
            bindparam("froms", type_=sa.ARRAY(time)),
            bindparam("tos", type_=sa.ARRAY(time)),
        )
        .table_valued("response_id", "first", "last")
        .render_derived(name="name")
    )
    kept_apart = spans.reported_usage.is_not(None)
    with_name = sa.and_(
        spans.response_id == name.c.response_id,
        spans.start_time.between(name.c.first, name.c.last),
        # Known in advance, these bounds prune partitions when the statement is planned.
        spans.start_time.between(bindparam("earliest"), bindparam("latest")),
        reports_usage(spans),
    )
    columns = (spans.response_id, spans.trace_id, kept_apart.label("is_kept_apart"))
    if is_sharded:  # Citus has no lateral join with a LIMIT
        return sa.select(*columns).select_from(name.join(_SPANS, with_name))
    one = sa.select(*columns).where(with_name).order_by(~kept_apart).limit(_MOST_OF_AN_ID)
    each = one.lateral("one")
    return sa.select(*each.c).select_from(name.join(each, sa.true()))


_WITH_NAMES: Final = _finding_names(is_sharded=False)
_WITH_NAMES_ON_SHARDS: Final = _finding_names(is_sharded=True)
