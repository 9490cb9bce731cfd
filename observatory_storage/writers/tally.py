"""What new spans say of their traces: gathered as they are written, counted once they are.

`TraceTotals.add` counts a span. This counts the same by trace and column, at a part of the cost,
since it is done for every span that is written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

from observatory_storage.rows import COLUMNS, Row
from observatory_storage.writers.trace_totals import EXACT, SpanFacts, TraceTotals

__all__ = ["Tally", "totals_of_new"]

_COUNTED: Final = tuple(
    COLUMNS["trace_spans"].index(column)
    for column in (
        "trace_id",
        "span_id",
        "parent_span_id",
        "name",
        "service_name",
        "start_time",
        "start_ns",
        "end_time",
        "status",
        "total_tokens",
        "total_cost_usd",
    )
)


def totals_of_new(rows: Iterable[Row]) -> list[TraceTotals]:
    """What new spans say, by trace."""
    given = list(rows)
    tally = Tally()
    if given:
        columns = list(zip(*(row.values for row in given), strict=True))
        tally.add(columns, [row.trace_text for row in given])
    return tally.totals()


class Tally:
    """Counts spans that replace none."""

    def __init__(self) -> None:
        self._columns: list[list[Any]] = [[] for _ in _COUNTED]
        self._texts: list[str] = []

    def add(self, columns: Sequence[Sequence[Any]], texts: Sequence[str]) -> None:
        """Gather some spans.

        Args:
            columns: all columns of `trace_spans`, in their order.
            texts: for each span its trace id as text.
        """
        for gathered, at in zip(self._columns, _COUNTED, strict=True):
            gathered.extend(columns[at])
        self._texts.extend(texts)

    def totals(self) -> list[TraceTotals]:
        """What the spans say, by trace."""
        places: defaultdict[int, list[int]] = defaultdict(list)
        for at, trace_id in enumerate(self._columns[0]):
            places[trace_id.int].append(at)  # UUID hashes in Python, its integer does not
        return [self._total(some) for some in places.values()]

    def _total(self, places: list[int]) -> TraceTotals:
        text = min(self._texts[at] for at in places)
        start, stop = places[0], places[-1] + 1
        if stop - start == len(places):  # next to each other, as spans of one request are
            return _total_of(text, [column[start:stop] for column in self._columns])
        return _total_of(text, [[column[at] for at in places] for column in self._columns])


def _total_of(text: str, columns: list[list[Any]]) -> TraceTotals:
    """What spans of one trace say of it, by their columns in the order of `_COUNTED`."""
    trace_ids, span_ids, parents, names, services, starts, starts_ns, *others = columns
    ends, statuses, tokens, costs = others
    places = range(len(trace_ids))
    # Mostly one span of a trace has no parent, which is the lead then.
    lead, at = min(
        ((parents[at] is not None, starts[at], starts_ns[at], span_ids[at]), at)
        for at in [at for at in places if parents[at] is None] or places
    )
    first = SpanFacts(ends[at], statuses[at], tokens[at], costs[at], lead, names[at], services[at])
    total = TraceTotals(trace_ids[0], text, first)
    total.start_time, total.last_start = min(starts), max(starts)
    total.end_time = max((end for end in ends if end is not None), default=None)
    total.spans, total.errors = len(starts), statuses.count("error")
    total.rank = 2 if total.errors else int("ok" in statuses)
    counted = [count for count in tokens if count is not None]
    if counted:
        total.tokens = sum(counted)
    for cost in costs:
        if cost is not None:
            total.cost = cost if total.cost is None else EXACT.add(total.cost, cost)
    return total
