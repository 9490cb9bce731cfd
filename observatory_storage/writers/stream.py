"""Spans straight from the caller into COPY: while the server works on one, the next is prepared.

The server takes longer for a row than the client, so what is done beside its work costs nothing.
The stream is the optimistic way and no more: whatever it meets that is not plain (a key that is
there already, a partition to be made, text to be repaired), the batch goes the thorough way of
`spans.write_spans`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from enum import Enum, auto
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection

from observatory_storage.errors import ValidationError
from observatory_storage.layout import Partitions
from observatory_storage.models import TraceSpan
from observatory_storage.rows import Row, prepare_span
from observatory_storage.writers import traces_of_spans as traces
from observatory_storage.writers.load import attempt, copy_rows, is_text_error, load
from observatory_storage.writers.tables import EVENTS, SPANS, Values
from observatory_storage.writers.trace_totals import TraceTotals, facts_of

__all__ = ["Feed", "Outcome", "stream_spans"]

_START: Final = SPANS.columns.index("start_time")


class Feed:
    """Spans that are prepared as they are asked for, and remembered for another attempt."""

    def __init__(self, rows: Iterable[Any]) -> None:
        given = _in_order(rows)
        self._count = len(given)
        self._given = iter(given)
        self._prepared: list[Row] = []

    def __iter__(self) -> Iterator[Row]:
        """Every row once, those that are not prepared yet last.

        Raises:
            ValidationError: names the row by its index in the batch.
        """
        yield from self._prepared
        for index, given in self._given:
            try:
                row = prepare_span(given)
            except ValidationError as error:
                raise ValidationError(error.field, error.value, error.rule, index) from None
            self._prepared.append(row)
            yield row

    def __len__(self) -> int:
        return self._count

    def all(self) -> list[Row]:
        """All rows, prepared."""
        for _ in self:
            pass
        return self._prepared


def _in_order(rows: Iterable[Any]) -> list[tuple[int, Any]]:
    """The rows with their places in the batch, sorted by key as far as that shows already.

    Writers that meet in one order wait for each other; in two orders they can come to a deadlock,
    which the next attempt gets over.
    """
    given = list(enumerate(rows))
    with suppress(TypeError, KeyError, AttributeError):  # preparing says what is wrong
        given.sort(key=_order)
    return given


def _order(numbered: tuple[int, Any]) -> tuple[Any, ...]:
    row = numbered[1]
    if isinstance(row, TraceSpan):
        trace_id, span_id, start = row.trace_id, row.span_id, row.start_time
    else:
        trace_id, span_id, start = row["trace_id"], row["span_id"], row["start_time"]
    return getattr(trace_id, "hex", trace_id), span_id, start


class _NotPlain(Exception):
    """The stream met a row that wants the thorough way."""


class Outcome(Enum):
    """How a stream ended: with all written, or with nothing."""

    WRITTEN = auto()
    CONFLICT = auto()
    NOT_PLAIN = auto()


def stream_spans(connection: Connection, feed: Feed, partitions: Partitions) -> Outcome:
    """Write the spans of the feed, their events and what they say of their traces."""
    said: dict[UUID, TraceTotals] = {}
    events: list[Values] = []

    def plain_rows() -> Iterator[Values]:
        has_place, has_place_for_events = map(partitions.holds, (SPANS.name, EVENTS.name))
        for row in feed:
            values = row.values
            if not has_place(values[_START]):
                raise _NotPlain
            if row.events:
                if not has_place_for_events(values[_START]):
                    raise _NotPlain
                events.extend(row.events)
            trace_id = values[0]
            facts = facts_of(values)
            total = said.get(trace_id)
            if total is None:
                total = said[trace_id] = TraceTotals(trace_id, row.trace_text, facts)
            elif row.trace_text < total.text:
                total.text = row.trace_text
            total.add(facts)
            yield values

    def straight_in() -> None:
        copy_rows(connection, SPANS, plain_rows(), SPANS.target)
        load(connection, EVENTS, events, "auto")

    try:
        if not attempt(connection, SPANS, straight_in):
            return Outcome.CONFLICT
    except _NotPlain:
        return Outcome.NOT_PLAIN
    except Exception as error:  # of the driver's or Python's own: all others go on up
        if not is_text_error(error):
            raise
        return Outcome.NOT_PLAIN
    traces.add(connection, said.values())
    return Outcome.WRITTEN
