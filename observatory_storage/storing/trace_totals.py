"""Computes the trace totals of a batch of spans in Python."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Context, Decimal
from operator import itemgetter
from typing import Any, Final, NamedTuple
from uuid import UUID

from observatory_storage.llm.log_facts import SCOPES_WITH_LOGGED_FACTS
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
    *("usage_span_count", "unsettled_since", "sample_weight"),
    *("weighted_span_count", "weighted_error_count", "weighted_tokens", "weighted_cost_usd"),
)
"""The columns of `traces` that are computed from spans, in the order of `TraceTotals.row`."""

# The values of a span that its trace's totals are computed from.
_counted: Final = itemgetter(
    *SPANS.positions(
        *("span_id", "parent_span_id", "name", "service_name", "start_time", "start_ns"),
        *("end_time", "status", "total_tokens", "total_cost_usd", "reported_usage"),
        *("response_id", "scope_name", "sample_weight"),
    )
)
# Among these values.
_START, _STATUS, _TOKENS, _COST, _RESPONSE_ID, _WEIGHT = 4, -7, -6, -5, -3, -1
_TRACE_ID: Final = SPANS.position["trace_id"]


_Counted = tuple[str, tuple[Any, ...]]
"""The text of a span's trace id, and the values of the span that totals need."""


class SpanFacts(NamedTuple):
    """The values of a span that the totals of its trace use."""

    end_time: datetime | None
    status: str
    tokens: int | None
    cost: Decimal | None
    reports_usage: bool
    response_id: str | None
    lead: tuple[bool, datetime, int, str]
    name: str
    service_name: str
    weight: int | None

    def outranks(self, new: SpanFacts) -> bool:
        """Whether replacing this by `new` may change an extremum, which adding cannot do.

        The weight is one: the lesser of two weights stays.
        """
        return (
            (self.end_time is not None and (new.end_time is None or new.end_time < self.end_time))
            or _STATUS_RANK[self.status] > _STATUS_RANK[new.status]
            or self[6:] != new[6:]
            or (self.tokens is not None and new.tokens is None)
            or (self.cost is not None and new.cost is None)
        )


def facts_of(span: Sequence[Any]) -> SpanFacts:
    """The facts of a prepared span."""
    span_id, parent, name, service, start, start_ns, end, status, *usage = _counted(span)
    lead = (parent is not None, start, start_ns, span_id)
    tokens, cost, reported, response_id, _, weight = usage
    reports = bool(tokens or cost or reported)
    return SpanFacts(end, status, tokens, cost, reports, response_id, lead, name, service, weight)


def _reports_usage(counted: Sequence[Any]) -> bool:
    tokens, cost, reported = counted[_TOKENS:_RESPONSE_ID]
    return bool(tokens or cost or reported)


class _Weighted:
    """The totals of the spans that some spans stand for."""

    def __init__(self, spans: Iterable[_Counted]) -> None:
        self.spans = self.errors = 0
        self.tokens: int | None = None
        self.cost: Decimal | None = None
        for _, counted in spans:
            self.add(
                counted[_WEIGHT] or 1,
                counted[_STATUS] == "error",
                counted[_TOKENS],
                counted[_COST],
            )

    def add(self, times: int, is_error: bool, tokens: int | None, cost: Decimal | None) -> None:
        """Add a span so many times, or subtract it."""
        self.spans += times
        self.errors += times * is_error
        if tokens is not None:
            self.tokens = (self.tokens or 0) + times * tokens
        if cost is not None:
            self.cost = _EXACT.add(self.cost or _ZERO, _EXACT.multiply(cost, Decimal(times)))


class TraceTotals:
    """The totals of some spans of one trace.

    Args:
        trace_id: the trace.
        spans: at least one span: for each, the text of its trace id and its facts.
    """

    # One is made for each trace of a batch, and a dictionary for each would keep the garbage
    # collector busy.
    __slots__ = (
        *("id", "text", "lead", "name", "service_name", "start_time", "last_start", "end_time"),
        *("spans", "errors", "usage_spans", "rank", "tokens", "cost", "weight", "weighted"),
        "unsettled_since",
    )

    def __init__(self, trace_id: UUID, spans: Sequence[_Counted]) -> None:
        # In one pass with local variables: this is done for every span that is written.
        text, earliest = spans[0][0], spans[0][1][_START]
        last, latest_end, lead = earliest, None, None
        errors = reporting = 0
        is_ok = is_unsettled = is_unsampled = False
        tokens = cost = weight = None
        lead_name = lead_service = ""
        # fmt: off
        for span_text, (
            span_id, parent, name, service, start, start_ns, end, status,
            span_tokens, span_cost, reported, response_id, scope, span_weight,
        ) in spans:
            # fmt: on
            if span_text != text:
                text = min(text, span_text)
            if start < earliest:
                earliest = start
            elif start > last:
                last = start
            if end is not None and (latest_end is None or end > latest_end):
                latest_end = end
            if status == "error":
                errors += 1
            elif status == "ok":
                is_ok = True
            if span_tokens or span_cost or reported:
                reporting += 1
                # Another trace may have a span of the same call.
                is_unsettled = is_unsettled or response_id is not None
            if scope in SCOPES_WITH_LOGGED_FACTS:  # a log record may tell more of the span
                is_unsettled = True
            if span_tokens is not None:
                tokens = span_tokens if tokens is None else tokens + span_tokens
            if span_cost is not None:
                cost = span_cost if cost is None else _EXACT.add(cost, span_cost)
            if span_weight is None:
                is_unsampled = True
            elif weight is None or span_weight < weight:
                weight = span_weight
            has_parent = parent is not None
            if lead is None or has_parent <= lead[0]:
                rank = has_parent, start, start_ns, span_id
                if lead is None or rank < lead:
                    lead, lead_name, lead_service = rank, name, service
        assert lead is not None
        self.id, self.text = trace_id, text
        self.lead: tuple[bool, datetime, int, str] = lead
        self.name: str = lead_name
        self.service_name: str = lead_service
        self.start_time: datetime = earliest
        self.last_start: datetime = last
        self.end_time: datetime | None = latest_end
        self.spans, self.errors, self.usage_spans = len(spans), errors, reporting
        self.rank = 2 if errors else int(is_ok)
        self.tokens: int | None = tokens
        self.cost: Decimal | None = cost
        # A span without a weight was not sampled, nor was its trace.
        self.weight: int | None = None if is_unsampled else weight
        self.weighted = None if weight is None else _Weighted(spans)
        self.unsettled_since = datetime.now(UTC) if is_unsettled else None

    def subtract(self, replaced: SpanFacts) -> None:
        """Subtract the counts of a stored span that one of these spans replaces.

        Extrema stay. A trace that may lose one is recomputed; see `SpanFacts.outranks`.
        """
        self.spans -= 1
        self.errors -= replaced.status == "error"
        self.usage_spans -= replaced.reports_usage
        if replaced.reports_usage and replaced.response_id is not None:
            self.unsettled_since = datetime.now(UTC)
        if replaced.tokens is not None:
            self.tokens = (self.tokens or 0) - replaced.tokens
        if replaced.cost is not None:
            self.cost = _EXACT.subtract(self.cost or _ZERO, replaced.cost)
        if self.weighted is not None:
            times = -(replaced.weight or 1)
            self.weighted.add(times, replaced.status == "error", replaced.tokens, replaced.cost)

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
            self.usage_spans,
            self.unsettled_since,
            self.weight,
            *self._weighted_columns(),
        )

    def _weighted_columns(self) -> tuple[int | None, int | None, Decimal | None, Decimal | None]:
        weighted = self.weighted
        if weighted is None:
            return None, None, None, None
        tokens = None if weighted.tokens is None else Decimal(weighted.tokens)
        return weighted.spans, weighted.errors, tokens, weighted.cost


class SpansByTrace:
    """Groups spans by trace, and keeps only the values that totals need."""

    def __init__(self) -> None:
        # The keys are the integers of the trace ids: a UUID is hashed in Python, an integer in C.
        self._spans: dict[int, list[_Counted]] = {}
        self._ids: dict[int, UUID] = {}
        self._divided: set[int] = set()
        self._parts = 0

    def add(self, rows: Iterable[Row]) -> None:
        """Add a part of the prepared spans."""
        self._parts += 1
        added: defaultdict[int, list[_Counted]] = defaultdict(list)
        for _, values, _, trace_text, _, _ in rows:  # by position: this runs for every span
            trace_id = values[_TRACE_ID]
            number = trace_id.int
            self._ids[number] = trace_id
            added[number].append((trace_text, _counted(values)))
        for number, spans in added.items():
            if number in self._spans:
                self._divided.add(number)
                self._spans[number] += spans
            else:
                self._spans[number] = spans

    def undecided(self) -> set[UUID]:
        """The traces whose usage can only be decided with spans of several parts.

        They were added in several parts, or have response ids in common.
        """
        found = {
            number
            for number in self._divided
            if sum(_reports_usage(counted) for _, counted in self._spans[number]) > 1
        }
        if self._parts > 1:
            named = [
                (counted[_RESPONSE_ID], number)
                for number, spans in self._spans.items()
                for _, counted in spans
                if counted[_RESPONSE_ID] is not None
            ]
            times = Counter(response_id for response_id, _ in named)
            if len(times) < len(named):
                found.update(number for response_id, number in named if times[response_id] > 1)
        return {self._ids[number] for number in found}

    def totals(self) -> dict[int, TraceTotals]:
        """The totals of each trace, by the integer of its id."""
        return {
            number: TraceTotals(self._ids[number], spans) for number, spans in self._spans.items()
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
