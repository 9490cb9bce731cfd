"""Spans straight from the caller into COPY: while the server works on one, the next is prepared.

The server takes longer for a row than the client, so what is done beside its work costs nothing.
The stream is the optimistic way and no more: whatever it meets that is not plain (a key that is
there already, a partition to be made, text to be repaired), the batch goes the thorough way of
`spans.write_spans`.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum, auto
from itertools import islice
from typing import Any, Final

from sqlalchemy import Connection

from observatory_storage.errors import ValidationError
from observatory_storage.layout import Partitions
from observatory_storage.models import TraceSpan
from observatory_storage.rows import (
    PART,
    Row,
    SpanColumns,
    prepare_all,
    prepare_span,
    prepare_span_columns,
)
from observatory_storage.writers import traces_of_spans as traces
from observatory_storage.writers.load import is_text_error
from observatory_storage.writers.spans import copy_spans
from observatory_storage.writers.tables import EVENTS, SPANS

__all__ = ["Feed", "Outcome", "stream_spans"]

_START: Final = SPANS.columns.index("start_time")


class Feed:
    """Spans that are prepared as they are asked for, in the order of their keys."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self._rows = list(rows)

    def parts(self) -> Iterator[SpanColumns]:
        """All the spans, some at a time.

        Raises:
            ValidationError: names the row by its index in the batch.
        """
        order = iter(_order_of(self._rows))
        while places := list(islice(order, PART)):
            with _named_by(places):
                part = prepare_span_columns([self._rows[at] for at in places])
            yield part

    def __len__(self) -> int:
        return len(self._rows)

    def all(self) -> list[Row]:
        """All the spans, prepared.

        Raises:
            ValidationError: names the row by its index in the batch.
        """
        return prepare_all(prepare_span, self._rows)


@contextmanager
def _named_by(places: Sequence[int]) -> Iterator[None]:
    """Name a row that is not valid by its place in the batch, not by that in the part."""
    try:
        yield
    except ValidationError as error:
        at = None if error.index is None else places[error.index]
        raise ValidationError(error.field, error.value, error.rule, at) from None


def _order_of(rows: list[Any]) -> Sequence[int]:
    """The rows' indexes in the order of `spans`, as far as that shows before they are prepared.

    Writers that meet in one order wait for each other; in two orders they can come to a deadlock,
    which the next attempt gets over.
    """
    try:
        starts = [row["start_time"] for row in rows if type(row) is dict]
        if len(starts) == len(rows) and all(map(operator.lt, starts, starts[1:])):
            return range(len(rows))  # as they mostly come
        keys = [_key_of(row) for row in rows]
        return sorted(range(len(rows)), key=keys.__getitem__)
    except (TypeError, KeyError, AttributeError):  # preparing says what is wrong
        return range(len(rows))


def _key_of(row: Any) -> tuple[Any, ...]:
    if isinstance(row, TraceSpan):
        return row.start_time, row.trace_id, row.span_id
    return row["start_time"], row["trace_id"], row["span_id"]


class _NotPlain(Exception):
    """The stream met a row that wants the thorough way."""


class Outcome(Enum):
    """How a stream ended: with all written, or with nothing."""

    WRITTEN = auto()
    CONFLICT = auto()
    NOT_PLAIN = auto()


def stream_spans(connection: Connection, feed: Feed, partitions: Partitions) -> Outcome:
    """Write the spans of the feed, their events and what they say of their traces."""

    def plain_parts() -> Iterator[SpanColumns]:
        for part in feed.parts():
            starts = part.columns[_START]
            with_events = [at for at, events in zip(starts, part.events, strict=True) if events]
            if not partitions.hold(SPANS.name, starts):
                raise _NotPlain
            if with_events and not partitions.hold(EVENTS.name, with_events):
                raise _NotPlain
            yield part

    try:
        said = copy_spans(connection, plain_parts())
    except _NotPlain:
        return Outcome.NOT_PLAIN
    except Exception as error:  # of the driver's or Python's own: all others go on up
        if not is_text_error(error):
            raise
        return Outcome.NOT_PLAIN
    if said is None:
        return Outcome.CONFLICT
    traces.add(connection, said)
    return Outcome.WRITTEN
