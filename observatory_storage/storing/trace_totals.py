"""Computes the trace totals of a batch of spans in Python."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Context, Decimal
from operator import itemgetter
from typing import Any, Final, NamedTuple
from uuid import UUID

from observatory_storage.rows import Row
from observatory_storage.tables import SPANS
from observatory_storage.times import MICROSECOND

__all__ = [
    "MAX_TOKENS",
    "TOTALS_COLUMNS",
    "SpanFacts",
    "SpansByTrace",
    "TraceTotals",
    "facts_of",
    "totals_of",
]

# Adds costs exactly, as PostgreSQL does: the usual context rounds to 28 digits.
_EXACT: Final = Context(prec=1000, traps=[])
_ZERO: Final = Decimal(0)
_STATUS_RANK: Final = {"unset": 0, "ok": 1, "error": 2}
_STATUS_OF_RANK: Final = ("unset", "ok", "error")
MAX_TOKENS: Final = 2**63 - 1  # the greatest bigint

TOTALS_COLUMNS: Final = (
    *("id", "trace_id", "service_name", "start_time", "end_time", "status", "root_span_name"),
    *("span_count", "error_count", "total_tokens", "total_cost_usd", "last_span_start"),
    *("lead_has_parent", "lead_start_time", "lead_start_ns", "lead_span_id", "duration_us"),
)
"""The columns of `traces` that are computed from spans, in the order of `TraceTotals.row`."""

# The values of a span that its trace's totals are computed from.
_counted: Final = itemgetter(
    *SPANS.positions(
        *("span_id", "parent_span_id", "name", "service_name", "start_time", "start_ns"),
        *("end_time", "status", "total_tokens", "total_cost_usd"),
    )
)
_TRACE_ID: Final = SPANS.position["trace_id"]


class SpanFacts(NamedTuple):
    """The values of a span that the totals of its trace use."""

    end_time: datetime | None
    status: str
    tokens: int | None
    cost: Decimal | None
    lead: tuple[bool, datetime, int, str]
    name: str
    service_name: str

    def outranks(self, new: SpanFacts) -> bool:
        """Whether replacing this by `new` may change an extremum, which adding cannot do."""
        return (
            (self.end_time is not None and (new.end_time is None or new.end_time < self.end_time))
            or _STATUS_RANK[self.status] > _STATUS_RANK[new.status]
            or self[4:] != new[4:]
            or (self.tokens is not None and new.tokens is None)
            or (self.cost is not None and new.cost is None)
        )


def facts_of(span: Sequence[Any]) -> SpanFacts:
    """The facts of a prepared span."""
    span_id, parent, name, service, start, start_ns, end, status, tokens, cost = _counted(span)
    lead = (parent is not None, start, start_ns, span_id)
    return SpanFacts(end, status, tokens, cost, lead, name, service)


class TraceTotals:
    """The totals of some spans of one trace.

    Args:
        trace_id: the trace.
        spans: at least one span: for each, the text of its trace id and its facts.
    """

    def __init__(self, trace_id: UUID, spans: Sequence[tuple[str, tuple[Any, ...]]]) -> None:
        self.id = trace_id
        self.text = min(text for text, _ in spans)
        # Column by column: this is done for every span that is written.
        columns = zip(*[counted for _, counted in spans], strict=True)
        span_ids, parents, names, services, starts, starts_ns, *others = columns
        ends, statuses, tokens, costs = others
        indexes = range(len(spans))
        # Usually a single span of a trace has no parent. It is the lead span.
        self.lead, lead = min(
            ((parents[index] is not None, starts[index], starts_ns[index], span_ids[index]), index)
            for index in [index for index in indexes if parents[index] is None] or indexes
        )
        self.name: str = names[lead]
        self.service_name: str = services[lead]
        self.start_time: datetime = min(starts)
        self.last_start: datetime = max(starts)
        self.end_time = max((end for end in ends if end is not None), default=None)
        self.spans = len(spans)
        self.errors = statuses.count("error")
        self.rank = 2 if self.errors else int("ok" in statuses)
        counted = [count for count in tokens if count is not None]
        self.tokens: int | None = sum(counted) if counted else None
        self.cost: Decimal | None = None
        for cost in costs:
            if cost is not None:
                self.cost = cost if self.cost is None else _EXACT.add(self.cost, cost)

    def subtract(self, replaced: SpanFacts) -> None:
        """Subtract the counts of a stored span that one of these spans replaces.

        Extrema stay. A trace that may lose one is recomputed; see `SpanFacts.outranks`.
        """
        self.spans -= 1
        self.errors -= replaced.status == "error"
        if replaced.tokens is not None:
            self.tokens = (self.tokens or 0) - replaced.tokens
        if replaced.cost is not None:
            self.cost = _EXACT.subtract(self.cost or _ZERO, replaced.cost)

    def row(self) -> tuple[Any, ...]:
        """The totals as a row in the order of `TOTALS_COLUMNS`."""
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
            None if self.tokens is None else max(-MAX_TOKENS, min(self.tokens, MAX_TOKENS)),
            self.cost,
            self.last_start,
            *self.lead,
            None if self.end_time is None else (self.end_time - self.start_time) // MICROSECOND,
        )


class SpansByTrace:
    """Groups spans by trace, and keeps only the values that totals need."""

    def __init__(self) -> None:
        # The keys are the integers of the trace ids: a UUID is hashed in Python, an integer in C.
        self._spans: defaultdict[int, list[tuple[str, tuple[Any, ...]]]] = defaultdict(list)

    def add(self, rows: Iterable[Row]) -> None:
        """Add prepared spans."""
        spans = self._spans
        for _, values, _, trace_text, _ in rows:  # by position: this runs for every span
            spans[values[_TRACE_ID].int].append((trace_text, _counted(values)))

    def totals(self) -> dict[int, TraceTotals]:
        """The totals of each trace, by the integer of its id."""
        return {
            number: TraceTotals(UUID(int=number), spans) for number, spans in self._spans.items()
        }


def totals_of(
    rows: Iterable[Row], replaced: Iterable[tuple[UUID, SpanFacts]] = ()
) -> list[TraceTotals]:
    """Compute the totals of spans, one for each trace.

    Args:
        rows: prepared spans.
        replaced: the trace id and the facts of the stored spans that are replaced.
    """
    spans = SpansByTrace()
    spans.add(rows)
    totals = spans.totals()
    for trace_id, facts in replaced:
        totals[trace_id.int].subtract(facts)
    return list(totals.values())
