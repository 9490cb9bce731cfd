"""The statements that add the totals of a batch of spans to `traces`.

The statements commute: the start is a minimum, the end a maximum, and counts and sums are added.
Name and service come from the lead span (the least by: has a parent, start, span id). So the result
does not depend on the order of writers.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from datetime import datetime
from operator import itemgetter
from typing import Any, Final, NamedTuple
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import Insert, insert

from observatory_storage.storing.binary_copy import encode
from observatory_storage.storing.conflict_rules import later, microseconds
from observatory_storage.storing.trace_locks import lock_rows
from observatory_storage.storing.trace_totals import MAX_TOKENS, TOTALS_COLUMNS, TraceTotals
from observatory_storage.storing.upsert import Loader
from observatory_storage.storing.upsert_target import UpsertTarget, in_literals
from observatory_storage.tables import TRACES, Values

__all__ = [
    "WEIGHTED",
    "TotalsRows",
    "TraceSummary",
    "add_totals",
    "lock_traces",
    "locked_traces",
    "rows_of_totals",
    "within_bigint",
]

_TRACES: Final = TRACES.table
_LEAD: Final = ("lead_has_parent", "lead_start_time", "lead_start_ns", "lead_span_id")
# A total -> the same of the spans that the spans stand for.
WEIGHTED: Final = {
    "span_count": "weighted_span_count",
    "error_count": "weighted_error_count",
    "total_tokens": "weighted_tokens",
    "total_cost_usd": "weighted_cost_usd",
}


class TraceSummary(NamedTuple):
    """Columns of a stored trace that say whether its usage has to be decided, and bound its spans.

    They are those of `Trace`.
    """

    id: UUID
    start_time: datetime
    last_span_start: datetime
    span_count: int
    usage_span_count: int


def within_bigint(
    total: sa.ColumnElement[Any], column: sa.ColumnElement[Any]
) -> sa.ColumnElement[Any]:
    """The sum, limited to bigint: absurd token counts must not make the spans fail."""
    if not isinstance(column.type, sa.BigInteger):
        return total
    # These two functions ignore NULL.
    bounded = sa.func.greatest(-MAX_TOKENS, sa.func.least(total, MAX_TOKENS))
    return sa.case((total.is_not(None), sa.cast(bounded, sa.BigInteger)))


def _add(_: UpsertTarget, statement: Insert) -> Any:
    """Add the totals of new spans to those of the stored spans."""
    old, new = _TRACES.c, statement.excluded
    # A row without spans was written by `write_trace`: the first span overrides it.
    without_spans = old.lead_span_id.is_(None)
    leads = sa.or_(
        without_spans,
        sa.tuple_(*(new[column] for column in _LEAD))
        < sa.tuple_(*(old[column] for column in _LEAD)),
    )
    start = sa.case(
        (without_spans, new.start_time), else_=sa.func.least(old.start_time, new.start_time)
    )
    end = sa.case((without_spans, new.end_time), else_=sa.func.greatest(old.end_time, new.end_time))
    changed = {
        "trace_id": sa.func.least(old.trace_id, new.trace_id),
        "start_time": start,
        "end_time": end,
        "duration_us": microseconds(start, end),
        "status": sa.case(
            (sa.or_(without_spans, new.status == "error"), new.status),
            (old.status == "error", old.status),
            (new.status == "ok", new.status),
            else_=old.status,
        ),
        "last_span_start": sa.func.greatest(old.last_span_start, new.last_span_start),
        "span_count": sa.case((without_spans, 0), else_=old.span_count) + new.span_count,
        "error_count": sa.case((without_spans, 0), else_=old.error_count) + new.error_count,
        **{
            column: sa.case(
                (sa.or_(without_spans, old[column].is_(None)), new[column]),
                else_=within_bigint(
                    sa.cast(old[column], sa.Numeric) + sa.func.coalesce(new[column], 0),
                    old[column],
                ),
            )
            for column in ("total_tokens", "total_cost_usd")
        },
        "usage_span_count": sa.case((without_spans, 0), else_=old.usage_span_count)
        + new.usage_span_count,
        "unsettled_since": sa.func.coalesce(old.unsettled_since, new.unsettled_since),
        "sample_weight": sa.case(
            (without_spans, new.sample_weight),
            # PostgreSQL's LEAST ignores NULL, which is a weight of 1.
            (
                sa.and_(old.sample_weight.is_not(None), new.sample_weight.is_not(None)),
                sa.func.least(old.sample_weight, new.sample_weight),
            ),
        ),
        **_added_weighted(old, new, without_spans),
        **{
            column: sa.case((leads, new[column]), else_=old[column])
            for column in ("service_name", "root_span_name", *_LEAD)
        },
        "updated_at": new.updated_at,
    }
    in_text = {
        column: in_literals(sa.type_coerce(value, old[column].type))
        for column, value in changed.items()
    }
    updating = statement.on_conflict_do_update(index_elements=["id"], set_=in_text)
    return updating.returning(*(old[column] for column in TraceSummary._fields))


def _added_weighted(
    old: Any, new: Any, without_spans: sa.ColumnElement[bool]
) -> dict[str, sa.ColumnElement[Any]]:
    """The weighted totals; NULL while no span has a weight."""
    is_weighted = sa.or_(old.weighted_span_count.is_not(None), new.weighted_span_count.is_not(None))
    added: dict[str, sa.ColumnElement[Any]] = {}
    for total, weighted in WEIGHTED.items():
        before, more = (sa.func.coalesce(side[weighted], side[total]) for side in (old, new))
        both = sa.func.coalesce(before + more, before, more)
        added[weighted] = sa.case((without_spans, new[weighted]), (is_weighted, both))
    return added


_TOTALS: Final = UpsertTarget(TRACES, _add, later, TOTALS_COLUMNS, "stage_traces_totals")
_ADD_FEW: Final = _add(_TOTALS, insert(_TRACES))
_ID: Final = _TOTALS.columns.index("id")
_summary_of = itemgetter(*map(_TOTALS.columns.index, TraceSummary._fields))
_FEW: Final = 8  # below this many traces a stage costs more than it saves
# ON CONFLICT DO UPDATE locks an existing row even if WHERE prevents the update.
_LOCK: Final = (
    insert(_TRACES)
    .from_select(list(_TOTALS.columns), sa.select(_TOTALS.stage))
    .on_conflict_do_update(
        index_elements=["id"], set_={"updated_at": _TRACES.c.updated_at}, where=sa.false()
    )
    .returning(_TRACES.c.id)
)


class TotalsRows(NamedTuple):
    """Totals of traces as rows that are ready to write.

    Attributes:
        rows: one row for each trace, in the order in which all writers lock traces.
        encoded: the rows encoded for COPY, if they were encoded in advance.
        undecided: the traces whose usage has to be decided from their stored spans in any case.
    """

    rows: list[Values]
    encoded: list[bytes]
    undecided: AbstractSet[UUID] = frozenset()


def rows_of_totals(
    totals: Iterable[TraceTotals],
    encode_for: sa.Connection | None = None,
    *,
    undecided: AbstractSet[UUID] = frozenset(),
) -> TotalsRows:
    """Make the rows that add these totals to their traces.

    Args:
        totals: one `TraceTotals` for each trace.
        encode_for: the connection that will write the rows, if it is busy until then. The rows are
            encoded for its COPY meanwhile.
        undecided: see `TotalsRows`.
    """
    # All writers use the same order. UUID compares in Python code; its integer does not.
    rows = [total.row() for total in sorted(totals, key=lambda total: total.id.int)]
    if encode_for is None or len(rows) < _FEW:
        return TotalsRows(rows, [], undecided)
    return TotalsRows(rows, encode(encode_for, _TOTALS, rows), undecided)


def add_totals(
    loader: Loader, totals: TotalsRows, *, optimistic: bool = True
) -> list[TraceSummary]:
    """Add totals to their traces. Missing traces are inserted.

    Returns the traces whose usage has to be decided from their stored spans: those that had spans
    before, and those of `totals.undecided`.

    Args:
        loader: a loader on a connection in a transaction.
        totals: the totals to add.
        optimistic: False if most of the traces are known to exist.
    """
    rows, encoded, undecided = totals
    if len(rows) >= _FEW:
        copying = Loader(loader.connection, "copy", loader.sent)
        stored = copying.upsert(_TOTALS, rows, encoded=encoded, optimistic=optimistic)
    elif rows:
        named = [dict(zip(_TOTALS.columns, row, strict=True)) for row in rows]
        stored = loader.connection.execute(_ADD_FEW, named).all()
    else:
        return []
    if not stored and not undecided:
        return []
    added = {row[_ID]: TraceSummary(*_summary_of(row)) for row in rows}
    found = [
        summary
        for summary in (TraceSummary(*row) for row in stored)
        if summary.id in undecided
        or (summary.usage_span_count > 1 and summary.span_count > added[summary.id].span_count)
    ]
    if not stored:  # all traces are new
        found = [added[trace_id] for trace_id in undecided]
    return found


def lock_traces(loader: Loader, totals: TotalsRows) -> set[UUID]:
    """Lock the rows of traces in the order of their ids, and insert missing ones.

    Returns the ids of the inserted traces, whose totals include the spans already.
    """
    Loader(loader.connection, "auto", loader.sent).stage(_TOTALS, totals.rows)
    new = set(loader.connection.execute(_LOCK).scalars())
    loader.unstage(_TOTALS)
    return new


_LOCK_STORED: Final = (
    sa.select(*(_TRACES.c[column] for column in TraceSummary._fields))
    .where(_TRACES.c.id == sa.func.any(sa.bindparam("ids", type_=sa.ARRAY(_TRACES.c.id.type))))
    .order_by(_TRACES.c.id)
    .with_for_update(key_share=True)
)


def locked_traces(connection: sa.Connection, trace_ids: Iterable[UUID]) -> list[TraceSummary]:
    """Lock the rows of stored traces in the order of their ids, as writers do, and read them."""
    return [TraceSummary(*tuple(row)) for row in lock_rows(connection, _LOCK_STORED, trace_ids)]
