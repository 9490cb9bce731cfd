"""The statements that add what a batch of spans says to `traces`.

Everything here commutes: start the least, end the greatest, counts and sums added, name and
service from the lead span (least by: has a parent, start, span id). So the order in which writers
come does not matter, and a trace is what its spans say.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple
from typing import cast as cast_type
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    ColumnElement,
    Connection,
    Numeric,
    Table,
    and_,
    bindparam,
    case,
    cast,
    false,
    func,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import Insert, aggregate_order_by, insert

from observatory_storage.models import Trace, TraceSpan
from observatory_storage.writers.copying import encode
from observatory_storage.writers.load import stage, unstage, write_rows
from observatory_storage.writers.tables import TableWriter, Values, microseconds
from observatory_storage.writers.trace_totals import MOST_TOKENS, TOTALS_COLUMNS, TraceTotals

__all__ = ["Said", "add", "claim", "recompute", "said_of"]

_TRACES: Final = cast_type(Table, Trace.__table__)
_LEAD: Final = ("lead_has_parent", "lead_start_time", "lead_start_ns", "lead_span_id")


def _fitting(total: ColumnElement[Any], column: ColumnElement[Any]) -> ColumnElement[Any]:
    """The sum as the column holds it: absurd numbers of tokens must not cost their spans."""
    if not isinstance(column.type, BigInteger):
        return total
    bounded = func.greatest(-MOST_TOKENS, func.least(total, MOST_TOKENS))  # which know no NULL
    return case((total.is_not(None), cast(bounded, BigInteger)))


def _add(_: TableWriter, statement: Insert) -> Insert:
    """What spans say is added to what other spans have said."""
    old, new = _TRACES.c, statement.excluded
    # A row that no span has spoken for yet is what write_trace said: the first span overrides it.
    silent = old.lead_span_id.is_(None)
    leads = or_(
        silent,
        tuple_(*(new[column] for column in _LEAD)) < tuple_(*(old[column] for column in _LEAD)),
    )
    start = case((silent, new.start_time), else_=func.least(old.start_time, new.start_time))
    end = case((silent, new.end_time), else_=func.greatest(old.end_time, new.end_time))
    return statement.on_conflict_do_update(
        index_elements=["id"],
        set_={
            "trace_id": func.least(old.trace_id, new.trace_id),
            "start_time": start,
            "end_time": end,
            "duration_us": microseconds(start, end),
            "status": case(
                (or_(silent, new.status == "error"), new.status),
                (old.status == "error", old.status),
                (new.status == "ok", new.status),
                else_=old.status,
            ),
            "last_span_start": func.greatest(old.last_span_start, new.last_span_start),
            "span_count": case((silent, 0), else_=old.span_count) + new.span_count,
            "error_count": case((silent, 0), else_=old.error_count) + new.error_count,
            **{
                column: case(
                    (or_(silent, old[column].is_(None)), new[column]),
                    else_=_fitting(
                        cast(old[column], Numeric) + func.coalesce(new[column], 0), old[column]
                    ),
                )
                for column in ("total_tokens", "total_cost_usd")
            },
            **{
                column: case((leads, new[column]), else_=old[column])
                for column in ("service_name", "root_span_name", *_LEAD)
            },
            "updated_at": func.now(),
        },
    )


_TOTALS: Final = TableWriter(Trace, _add, columns=TOTALS_COLUMNS, purpose="_totals")
_ADD_FEW: Final = _add(_TOTALS, insert(_TRACES))
_FEW: Final = 8  # below this many traces a stage costs more than it saves
# A row that is there already is locked by this, though it is not updated.
_CLAIM: Final = (
    insert(_TRACES)
    .from_select(list(_TOTALS.columns), select(_TOTALS.stage))
    .on_conflict_do_update(
        index_elements=["id"], set_={"updated_at": _TRACES.c.updated_at}, where=false()
    )
    .returning(_TRACES.c.id)
)


class Said(NamedTuple):
    """What spans say of their traces.

    Attributes:
        rows: one for each trace, in the order in which all writers lock them.
        encoded: the same as a COPY sends them, where there was time to make that.
    """

    rows: list[Values]
    encoded: list[bytes]


def said_of(traces: Iterable[TraceTotals], encoder: Connection | None = None) -> Said:
    """What is said of traces, to be added.

    Args:
        encoder: the connection that is to add it, where that is busy until then.
    """
    rows = _TOTALS.unique([trace.row() for trace in traces])
    if encoder is None or len(rows) < _FEW:
        return Said(rows, [])
    return Said(rows, encode(encoder, _TOTALS, rows))


def add(connection: Connection, said: Said, *, optimistic: bool = True) -> None:
    """Add what spans say to their traces, making those that are not there yet.

    Args:
        connection: in a transaction.
        optimistic: False where most of the traces are known to be there.
    """
    rows, encoded = said
    if len(rows) >= _FEW:
        write_rows(connection, _TOTALS, rows, "copy", encoded=encoded, optimistic=optimistic)
    elif rows:
        connection.execute(_ADD_FEW, [dict(zip(_TOTALS.columns, row, strict=True)) for row in rows])


def claim(connection: Connection, said: Said) -> set[UUID]:
    """Lock the rows of traces, in the order of their ids, and make those not there yet.

    Returns the ids of the new ones, which count the spans already.
    """
    stage(connection, _TOTALS, said.rows, "auto")
    new = set(connection.execute(_CLAIM).scalars())
    unstage(connection, _TOTALS)
    return new


def _recomputing() -> Any:
    spans = TraceSpan.__table__.c
    bounds = _TRACES.alias("bounds")
    order = (
        spans.parent_span_id.is_not(None),
        spans.start_time,
        spans.start_ns,
        spans.span_id,
    )

    def of_lead(column: ColumnElement[Any]) -> ColumnElement[Any]:
        return func.array_agg(aggregate_order_by(column, *order))[1]

    errors = func.count().filter(spans.status == "error")
    said = (
        select(
            spans.trace_id.label("id"),
            func.min(spans.start_time).label("start_time"),
            func.max(spans.end_time).label("end_time"),
            case(
                (errors > 0, literal("error")),
                (func.count().filter(spans.status == "ok") > 0, literal("ok")),
                else_=literal("unset"),
            ).label("status"),
            func.count().label("span_count"),
            errors.label("error_count"),
            _fitting(func.sum(spans.total_tokens), spans.total_tokens).label("total_tokens"),
            func.sum(spans.total_cost_usd).label("total_cost_usd"),
            func.max(spans.start_time).label("last_span_start"),
            of_lead(spans.name).label("root_span_name"),
            of_lead(spans.service_name).label("service_name"),
            cast(of_lead(spans.parent_span_id.is_not(None)), Boolean).label("lead_has_parent"),
            of_lead(spans.start_time).label("lead_start_time"),
            of_lead(spans.start_ns).label("lead_start_ns"),
            of_lead(spans.span_id).label("lead_span_id"),
        )
        # The bounds prune the partitions: a trace's spans start within them.
        .join_from(
            bounds,
            TraceSpan.__table__,
            and_(
                spans.trace_id == bounds.c.id,
                spans.start_time >= bounds.c.start_time,
                spans.start_time <= bounds.c.last_span_start,
            ),
        )
        .where(bounds.c.id == func.any(bindparam("ids", type_=ARRAY(_TRACES.c.id.type))))
        .group_by(spans.trace_id)
        .subquery("said")
    )
    return (
        update(_TRACES)
        .where(_TRACES.c.id == said.c.id)
        .values(
            **{column.name: column for column in said.c if column.name != "id"},
            duration_us=microseconds(said.c.start_time, said.c.end_time),
            updated_at=func.now(),
        )
    )


_RECOMPUTE: Final = _recomputing()


def recompute(connection: Connection, trace_ids: Iterable[UUID]) -> None:
    """Set traces, whose rows are locked, to what all their stored spans say."""
    if ids := list(trace_ids):
        connection.execute(_RECOMPUTE, {"ids": ids})
