"""What a batch of spans says of its traces, and the statements that add it to `traces`.

Everything here commutes: start the least, end the greatest, counts and sums added, name and
service from the lead span (least by: has a parent, start, span id). So the order in which writers
come does not matter, and a trace is what its spans say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Context, Decimal
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
    Text,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import Insert, aggregate_order_by, insert

from observatory_storage.models import Trace, TraceSpan
from observatory_storage.rows import COLUMNS
from observatory_storage.writers.tables import microseconds

__all__ = ["SpanFacts", "TraceTotals", "add", "claim", "facts_of", "recompute", "totals"]

_AT: Final = {column: at for at, column in enumerate(COLUMNS["trace_spans"])}
# Adds costs exactly, as PostgreSQL does: the usual context rounds to 28 digits.
_EXACT: Final = Context(prec=1000, traps=[])
_NOTHING: Final = Decimal(0)
_MOST: Final = 2**63 - 1  # tokens that a bigint holds
_STATUS_RANK: Final = {"unset": 0, "ok": 1, "error": 2}
_STATUS_OF_RANK: Final = ("unset", "ok", "error")


class SpanFacts(NamedTuple):
    """What a trace takes from one of its spans."""

    end_time: datetime | None
    status: str
    tokens: int | None
    cost: Decimal | None
    lead: tuple[bool, datetime, int, str]
    name: str
    service_name: str

    def outranks(self, new: SpanFacts) -> bool:
        """Whether replacing this by `new` may take away what adding cannot: an extremum."""
        return (
            (self.end_time is not None and (new.end_time is None or new.end_time < self.end_time))
            or _STATUS_RANK[self.status] > _STATUS_RANK[new.status]
            or self[4:] != new[4:]
            or (self.tokens is not None and new.tokens is None)
            or (self.cost is not None and new.cost is None)
        )


def facts_of(span: Sequence[Any]) -> SpanFacts:
    """The facts of a prepared span."""
    start, start_ns, span_id = span[_AT["start_time"]], span[_AT["start_ns"]], span[_AT["span_id"]]
    return SpanFacts(
        span[_AT["end_time"]],
        span[_AT["status"]],
        span[_AT["total_tokens"]],
        span[_AT["total_cost_usd"]],
        (span[_AT["parent_span_id"]] is not None, start, start_ns, span_id),
        span[_AT["name"]],
        span[_AT["service_name"]],
    )


class TraceTotals:
    """What some spans of one trace say of it together."""

    __slots__ = (
        "cost",
        "end_time",
        "errors",
        "id",
        "last_start",
        "lead",
        "name",
        "rank",
        "service_name",
        "spans",
        "start_time",
        "text",
        "tokens",
    )

    def __init__(self, trace_id: UUID, text: str, first: SpanFacts) -> None:
        self.id, self.text = trace_id, text
        self.start_time = self.last_start = first.lead[1]
        self.end_time: datetime | None = None
        self.rank = self.spans = self.errors = 0
        self.tokens: int | None = None
        self.cost: Decimal | None = None
        self.lead, self.name, self.service_name = first.lead, first.name, first.service_name

    def add(self, span: SpanFacts, replaced: SpanFacts | None = None) -> None:
        """Count a span, or what it changes where it replaces a stored one."""
        start = span.lead[1]
        if start < self.start_time:
            self.start_time = start
        elif start > self.last_start:
            self.last_start = start
        if span.end_time is not None and (self.end_time is None or span.end_time > self.end_time):
            self.end_time = span.end_time
        self.rank = max(self.rank, _STATUS_RANK[span.status])
        if span.lead < self.lead:
            self.lead, self.name, self.service_name = span.lead, span.name, span.service_name
        self.errors += span.status == "error"
        if span.tokens is not None:
            self.tokens = (self.tokens or 0) + span.tokens
        if span.cost is not None:
            self.cost = _EXACT.add(self.cost or _NOTHING, span.cost)
        if replaced is None:
            self.spans += 1
            return
        self.errors -= replaced.status == "error"
        if replaced.tokens is not None:
            self.tokens = (self.tokens or 0) - replaced.tokens
        if replaced.cost is not None:
            self.cost = _EXACT.subtract(self.cost or _NOTHING, replaced.cost)

    def row(self) -> tuple[Any, ...]:
        """In the order of `_INCOMING`."""
        return (
            self.id,
            self.text,
            self.service_name,
            self.start_time,
            self.end_time,
            _STATUS_OF_RANK[self.rank],
            self.name,
            self.spans,
            self.errors,
            None if self.tokens is None else max(-_MOST, min(self.tokens, _MOST)),
            self.cost,
            self.last_start,
            *self.lead,
        )


def totals(
    spans: Iterable[tuple[UUID, str, SpanFacts, SpanFacts | None]],
) -> dict[UUID, TraceTotals]:
    """By trace: what the (trace id, its text, span, replaced span) say together."""
    found: dict[UUID, TraceTotals] = {}
    for trace_id, text, span, replaced in spans:
        total = found.get(trace_id)
        if total is None:
            total = found[trace_id] = TraceTotals(trace_id, text, span)
        elif text < total.text:
            total.text = text
        total.add(span, replaced)
    return found


_TRACES: Final = cast_type(Table, Trace.__table__)
_INCOMING: Final = (
    "id",
    "trace_id",
    "service_name",
    "start_time",
    "end_time",
    "status",
    "root_span_name",
    "span_count",
    "error_count",
    "total_tokens",
    "total_cost_usd",
    "last_span_start",
    "lead_has_parent",
    "lead_start_time",
    "lead_start_ns",
    "lead_span_id",
)
_LEAD: Final = ("lead_has_parent", "lead_start_time", "lead_start_ns", "lead_span_id")


def _fitting(total: ColumnElement[Any], column: ColumnElement[Any]) -> ColumnElement[Any]:
    """The sum as the column holds it: absurd numbers of tokens must not cost their spans."""
    if not isinstance(column.type, BigInteger):
        return total
    bounded = func.greatest(-_MOST, func.least(total, _MOST))  # which know no NULL
    return case((total.is_not(None), cast(bounded, BigInteger)))


def _insert_incoming() -> Insert:
    """INSERT of the traces given as arrays, one a column, sorted by id: writers meet in one order.

    One statement with a dozen parameters, however many traces.
    """
    incoming = (
        func.unnest(
            *(bindparam(name, type_=ARRAY(_array_item(name)), required=True) for name in _INCOMING)
        )
        .table_valued(*_INCOMING)
        .render_derived(name="incoming")
    )
    columns = [incoming.c[name] for name in _INCOMING]
    duration = microseconds(incoming.c.start_time, incoming.c.end_time)
    return insert(_TRACES).from_select(
        [*_INCOMING, "duration_us"], select(*columns, duration).order_by(incoming.c.id)
    )


def _array_item(name: str) -> Any:
    kind = _TRACES.c[name].type
    return Text() if isinstance(kind, Text) else kind


def _adding() -> Insert:
    statement = _insert_incoming()
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


_ADD: Final = _adding()
_ADD_NEW: Final = (
    _insert_incoming().on_conflict_do_nothing(index_elements=["id"]).returning(_TRACES.c.id)
)


def _arrays(traces: Iterable[TraceTotals]) -> dict[str, list[Any]]:
    rows = [trace.row() for trace in traces]
    columns = map(list, zip(*rows, strict=True))
    return dict(zip(_INCOMING, columns, strict=True)) if rows else {}


def add(connection: Connection, traces: Iterable[TraceTotals]) -> None:
    """Add what spans say to their traces, making those that are not there yet."""
    if arrays := _arrays(traces):
        connection.execute(_ADD, arrays)


def add_new(connection: Connection, traces: Iterable[TraceTotals]) -> set[UUID]:
    """Make the traces that are not there yet; their ids. The others are not touched."""
    arrays = _arrays(traces)
    return set(connection.execute(_ADD_NEW, arrays).scalars()) if arrays else set()


_LOCK: Final = (
    select(_TRACES.c.id)
    .where(_TRACES.c.id == func.any(bindparam("ids", type_=ARRAY(_TRACES.c.id.type))))
    .order_by(_TRACES.c.id)
    .with_for_update()
)


def claim(connection: Connection, traces: Mapping[UUID, TraceTotals]) -> set[UUID]:
    """Lock the rows of the traces, in the order of their ids, and make those not there yet.

    Returns the ids of the new ones, which count the spans already.
    """
    new: set[UUID] = set()
    wanted = set(traces)
    while wanted:
        made = add_new(connection, (traces[trace_id] for trace_id in traces if trace_id in wanted))
        new |= made
        # A trace that another transaction deletes between the two statements is made again.
        wanted -= made | set(connection.execute(_LOCK, {"ids": list(wanted - made)}).scalars())
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
