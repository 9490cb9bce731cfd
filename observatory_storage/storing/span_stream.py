"""Streams spans from the caller into COPY: parts are prepared while the server inserts others.

The server takes longer for a row than the client, so preparing during the COPY costs no time. The
stream handles only clean spans. If a key exists already, a partition is missing or text must be
repaired, `store.write_batch` writes the batch.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum, auto
from itertools import islice
from typing import Any, Final

from observatory_storage.errors import ValidationError
from observatory_storage.layout import Partitions
from observatory_storage.models import TraceSpan
from observatory_storage.rows import PART, Row, prepare_all
from observatory_storage.storing.span_copy import SpanCopy
from observatory_storage.storing.trace_upsert import add_totals
from observatory_storage.storing.upsert import Loader, is_text_error
from observatory_storage.tables import EVENTS, SPANS

__all__ = ["SpanFeed", "StreamOutcome", "stream_spans"]

_START: Final = SPANS.position["start_time"]


class SpanFeed:
    """Prepares spans on demand, in the order of their starts."""

    def __init__(self, rows: Iterable[Any]) -> None:
        self._rows = list(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def parts(self) -> Iterator[list[Row]]:
        """All the spans, in parts.

        Raises:
            ValidationError: names the row by its index in the batch.
        """
        order = iter(_order_of(self._rows))
        while indexes := list(islice(order, PART)):
            try:
                part = prepare_all(SPANS, [self._rows[index] for index in indexes])
            except ValidationError as error:
                index = None if error.index is None else indexes[error.index]
                raise ValidationError(error.field, error.value, error.rule, index) from None
            yield part

    def all(self) -> list[Row]:
        """All the spans, in the order in which they were given.

        Raises:
            ValidationError: names the row by its index in the batch.
        """
        return prepare_all(SPANS, self._rows)


def _order_of(rows: list[Any]) -> Sequence[int]:
    """The indexes of unprepared rows in `span_merge.ORDER`, as far as it can be determined.

    Writers that use the same order wait for each other. With different orders they can deadlock,
    which a retry resolves.
    """
    try:
        starts = [row["start_time"] for row in rows if type(row) is dict]
        if len(starts) == len(rows) and all(map(operator.lt, starts, starts[1:])):
            return range(len(rows))  # the usual case: they are in order already
        keys = [_key_of(row) for row in rows]
        return sorted(range(len(rows)), key=keys.__getitem__)
    except (TypeError, KeyError, AttributeError):  # preparing these rows raises the error
        return range(len(rows))


def _key_of(row: Any) -> tuple[Any, ...]:
    if isinstance(row, TraceSpan):
        return row.start_time, row.trace_id, row.span_id
    return row["start_time"], row["trace_id"], row["span_id"]


class StreamOutcome(Enum):
    """The outcome of a stream: it has written all spans or none."""

    WRITTEN = auto()
    CONFLICT = auto()
    NOT_CLEAN = auto()


class _NotClean(Exception):
    """The stream met rows whose partition is not known to exist."""


def stream_spans(loader: Loader, feed: SpanFeed, partitions: Partitions) -> StreamOutcome:
    """Write the spans of the feed with their events, and add them to their traces."""
    try:
        totals = SpanCopy(loader).run(_clean_parts(feed, partitions))
    except _NotClean:
        return StreamOutcome.NOT_CLEAN
    except Exception as error:  # text that cannot be stored; other errors are raised
        if not is_text_error(error):
            raise
        return StreamOutcome.NOT_CLEAN
    if totals is None:
        return StreamOutcome.CONFLICT
    add_totals(loader, totals)
    return StreamOutcome.WRITTEN


def _clean_parts(feed: SpanFeed, partitions: Partitions) -> Iterator[list[Row]]:
    for part in feed.parts():
        starts = [row[1][_START] for row in part]
        with_events = [row[1][_START] for row in part if row[2]]
        if not partitions.hold(SPANS.name, starts):
            raise _NotClean
        if with_events and not partitions.hold(EVENTS.name, with_events):
            raise _NotClean
        yield part
