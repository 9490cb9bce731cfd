"""Walks over stored spans in the order of their starts, page by page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import sqlalchemy as sa

from observatory_storage.errors import ValidationError
from observatory_storage.storing.fact_changes import SpanKey
from observatory_storage.tables import SPANS
from observatory_storage.times import MICROSECOND

__all__ = ["SpanWalk"]

_LAST_MOMENT: Final = datetime.max.replace(tzinfo=UTC)
_SPANS: Final = SPANS.table.c
_KEY: Final = tuple(_SPANS[name] for name in SpanKey._fields)


class SpanWalk:
    """The pages of the spans that start within [start, end).

    Attributes:
        spans: the number of spans that were passed.
        next_start: where another walk continues, once `max_spans` have been passed.

    Args:
        statement: selects the spans.
        start: the first start; None for the oldest span.
        end: the first start that is left out; None for no bound.
        page_size: the most spans of a page.
        max_spans: end after so many spans, and those that start with the last one.

    Raises:
        ValidationError: `max_spans` is not a positive integer.
    """

    def __init__(
        self,
        statement: sa.Select[Any],
        start: datetime | None,
        end: datetime | None,
        *,
        page_size: int,
        max_spans: int | None,
    ) -> None:
        if max_spans is not None and (type(max_spans) is not int or max_spans < 1):
            raise ValidationError("max_spans", max_spans, "must be a positive integer or None")
        self._ordered = statement.order_by(*_KEY)
        self._start = start
        self._end = end
        self._page_size = page_size
        self._max_spans = max_spans
        self._after: SpanKey | None = None
        self.spans = 0
        self.next_start: datetime | None = None

    def page(self) -> sa.Select[Any]:
        """The statement for the spans after those that were passed."""
        size = self._page_size
        if self._max_spans is not None and self.next_start is None:
            size = min(size, self._max_spans - self.spans)
        page = self._ordered.limit(size)
        if self._after is not None:
            # The first condition uses the index and prunes partitions.
            page = page.where(
                _SPANS.start_time >= self._after.start_time, sa.tuple_(*_KEY) > self._after
            )
        elif self._start is not None:
            page = page.where(_SPANS.start_time >= self._start)
        return page if self._end is None else page.where(_SPANS.start_time < self._end)

    def passed(self, keys: Sequence[SpanKey]) -> datetime:
        """Go on after the spans of a page; return the start of the last one."""
        self.spans += len(keys)
        self._after = last = keys[-1]
        if self.spans == self._max_spans and last.start_time < _LAST_MOMENT:
            # The spans that start with the last one are read too: the next walk begins after them.
            self.next_start = self._end = last.start_time + MICROSECOND
        return last.start_time
