"""Writes spans with their events and their traces, in one transaction.

Without a conflict, the spans are copied into their table and added to their traces. If a span
exists already, `span_merge` takes over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter

from observatory_storage.changed_spans import mark_changes
from observatory_storage.pricing import PriceTable
from observatory_storage.rows import PART, Row
from observatory_storage.storing.binary_copy import copy_parts
from observatory_storage.storing.conflict_rules import WITH_PAYLOADS, target_of
from observatory_storage.storing.frame_builder import FrameBuilder, load_frames
from observatory_storage.storing.span_costs import with_costs
from observatory_storage.storing.span_merge import Key, merge_spans, place_of
from observatory_storage.storing.stored_usage import decide_traces
from observatory_storage.storing.trace_totals import SpansByTrace, totals_of
from observatory_storage.storing.trace_upsert import TotalsRows, add_totals, rows_of_totals
from observatory_storage.storing.upsert import Loader, chosen_method
from observatory_storage.storing.usage_in_batch import counted_rows
from observatory_storage.tables import EVENTS, SPANS, TRACES, Values

__all__ = ["SpanCopy", "write_spans"]

_SPANS, _EVENTS, _TRACES = target_of(SPANS), target_of(EVENTS), target_of(TRACES)
_events_of, _values_of = attrgetter("events"), attrgetter("values")
_SPAN_ID, _START, _END, _WEIGHT = SPANS.positions(
    "span_id", "start_time", "end_time", "sample_weight"
)


def write_spans(
    loader: Loader,
    rows: Sequence[Row],
    *,
    trace_rows: Sequence[Values] = (),
    lone_events: Sequence[Values] = (),
    optimistic: bool = True,
) -> None:
    """Write spans and their events, and add the spans to the totals of their traces.

    Args:
        loader: a loader on a connection in a transaction.
        rows: prepared spans.
        trace_rows: rows of `traces` of the same batch, written together with the totals of traces.
        lone_events: events of the same batch that were written without their span. They are not
            written here, but a replaced span does not remove them.
        optimistic: False if these spans have met a conflict already.
    """
    totals: TotalsRows | None = None
    spans: dict[Key, Row] = {}
    if optimistic and chosen_method(loader.method, len(rows)) == "copy" and _are_distinct(rows):
        totals = SpanCopy(loader).run([sorted(rows, key=place_of)])
    elif optimistic:
        spans = _unique(rows, loader.prices)
        totals = _insert_spans(loader, list(spans.values()))
    if totals is None:
        spans = spans or _unique(rows, loader.prices)
        merge_spans(loader, spans, trace_rows, lone_events)
    if spans and loader.written_spans is not None:
        loader.written_spans[:] = spans.values()  # not what a COPY wrote before a conflict
    if totals is not None:
        loader.upsert(_TRACES, [*trace_rows])
        mark_changes(loader.connection, [row.values[_START] for row in rows])
        decide_traces(loader.connection, add_totals(loader, totals, optimistic=not trace_rows))


class SpanCopy:
    """Copies spans into their table, and then their events.

    While the server inserts the spans, the totals of their traces are computed and encoded.

    Args:
        loader: a loader on a connection in a transaction.
    """

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._spans = SpansByTrace()
        self._events: list[Values] = []
        self._totals = TotalsRows([], [])
        self._builder: FrameBuilder | None = None
        self._is_framed = False

    def run(self, parts: Iterable[Sequence[Row]]) -> TotalsRows | None:
        """Copy the spans; return the totals to add, or None after a conflict.

        Args:
            parts: the spans in `span_merge.ORDER`, in parts, consumed while the COPY runs.
        """
        copied = self._loader.attempt(_SPANS, lambda: self._copy(parts))
        return self._totals if copied else None

    def _copy(self, parts: Iterable[Sequence[Row]]) -> None:
        connection, sent = self._loader.connection, self._loader.sent
        events = _EVENTS
        if self._loader.payload_threshold is not None:
            self._builder = FrameBuilder(self._loader.payload_threshold)
            events = WITH_PAYLOADS[EVENTS.name]
        framed = WITH_PAYLOADS[SPANS.name]
        copy_parts(connection, _SPANS, self._values(parts), _SPANS.target, sent, wider=framed)
        loader = Loader(connection, "auto", sent)
        loader.load(events, events.unique(self._events))
        if self._builder is not None:
            load_frames(loader, self._builder)

    def _values(self, parts: Iterable[Sequence[Row]]) -> Iterator[Sequence[Values]]:
        for given in parts:
            part = counted_rows(with_costs(given, self._loader.prices))
            self._spans.add(part)
            if self._loader.written_spans is not None:
                self._loader.written_spans += part
            if self._builder is not None:
                yield from self._framed(part, self._builder)
                continue
            for events in filter(None, map(_events_of, part)):
                self._events += events
            yield list(map(_values_of, part))
        # Computed here, before the last COPY ends, because the server is still inserting rows.
        totals, undecided = self._spans.totals().values(), self._spans.undecided()
        self._totals = rows_of_totals(totals, self._loader.connection, undecided=undecided)

    def _framed(self, part: Sequence[Row], builder: FrameBuilder) -> Iterator[Sequence[Values]]:
        """The values of spans and events, few at a time if values are large.

        They have their payload columns from the first large value on. Most batches have none.
        """
        self._is_framed = self._is_framed or builder.may_move(part)
        size = PART if self._is_framed else max(1, len(part))
        for start in range(0, len(part), size):
            rows = part[start : start + size]
            for events in filter(None, map(_events_of, rows)):
                self._events += builder.events(events)
            yield builder.spans(rows) if self._is_framed else list(map(_values_of, rows))
            builder.end_part()


def _insert_spans(loader: Loader, spans: Sequence[Row]) -> TotalsRows | None:
    """The same as `SpanCopy.run`, with the loader's method."""
    events = _EVENTS.unique([event for row in spans for event in row.events or ()])

    def insert() -> None:
        if loader.payload_threshold is None:
            loader.load(_SPANS, [row.values for row in spans])
            loader.load(_EVENTS, events)
            return
        builder = FrameBuilder(loader.payload_threshold)
        loader.load(WITH_PAYLOADS[SPANS.name], builder.spans(spans))
        loader.load(WITH_PAYLOADS[EVENTS.name], builder.events(events))
        load_frames(loader, builder)

    return rows_of_totals(totals_of(spans)) if loader.attempt(_SPANS, insert) else None


def _are_distinct(rows: Sequence[Row]) -> bool:
    """Whether all rows are surely different spans, compared by a part of their keys."""
    return len({(row.values[_SPAN_ID], row.values[_START]) for row in rows}) == len(rows)


def _unique(rows: Sequence[Row], prices: PriceTable | None) -> dict[Key, Row]:
    """The last version of each span in `span_merge.ORDER`; ended versions are preferred.

    Costs are computed with the prices, and usage counts once among these versions.
    """
    key_of = _SPANS.key_of
    last: dict[Key, Row] = {}
    for row in rows:
        key = key_of(row.values)
        earlier = last.get(key)
        if earlier is None:
            last[key] = row
        elif earlier.values[_END] is None or row.values[_END] is not None:
            # A version without `events` keeps the events of the version before it.
            kept = row._replace(events=earlier.events) if row.events is None else row
            last[key] = _with_lesser_weight(kept, earlier)
    unique = counted_rows(with_costs(sorted(last.values(), key=place_of), prices))
    return {key_of(row.values): row for row in unique}


def _with_lesser_weight(row: Row, earlier: Row) -> Row:
    """The row as `UpsertTarget.replacing` has it: a version without a weight was not sampled."""
    before, weight = earlier.values[_WEIGHT], row.values[_WEIGHT]
    if weight is None or (before is not None and before >= weight):
        return row
    return row._replace(values=(*row.values[:_WEIGHT], before, *row.values[_WEIGHT + 1 :]))
