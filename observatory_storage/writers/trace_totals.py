"""What a batch of spans says of its traces, added up in Python."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Context, Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

from observatory_storage.rows import COLUMNS

__all__ = [
    "EXACT",
    "MOST_TOKENS",
    "TOTALS_COLUMNS",
    "SpanFacts",
    "TraceTotals",
    "facts_of",
    "totals",
]

# Adds costs exactly, as PostgreSQL does: the usual context rounds to 28 digits.
EXACT: Final = Context(prec=1000, traps=[])
_NOTHING: Final = Decimal(0)
_STATUS_RANK: Final = {"unset": 0, "ok": 1, "error": 2}
_STATUS_OF_RANK: Final = ("unset", "ok", "error")
MOST_TOKENS: Final = 2**63 - 1  # that a bigint holds


# The columns of `traces` that spans speak of, in the order of `TraceTotals.row`.
TOTALS_COLUMNS: Final = (
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
    "duration_us",
)
_MICROSECOND: Final = timedelta(microseconds=1)
_AT: Final = {column: at for at, column in enumerate(COLUMNS["trace_spans"])}


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
    start, start_ns, span_id = (span[_AT[name]] for name in ("start_time", "start_ns", "span_id"))
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
            self.cost = EXACT.add(self.cost or _NOTHING, span.cost)
        if replaced is None:
            self.spans += 1
            return
        self.errors -= replaced.status == "error"
        if replaced.tokens is not None:
            self.tokens = (self.tokens or 0) - replaced.tokens
        if replaced.cost is not None:
            self.cost = EXACT.subtract(self.cost or _NOTHING, replaced.cost)

    def row(self) -> tuple[Any, ...]:
        """In the order of `TOTALS_COLUMNS`."""
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
            None if self.tokens is None else max(-MOST_TOKENS, min(self.tokens, MOST_TOKENS)),
            self.cost,
            self.last_start,
            *self.lead,
            None if self.end_time is None else (self.end_time - self.start_time) // _MICROSECOND,
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
