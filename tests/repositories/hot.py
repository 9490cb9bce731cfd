"""What a question that is often asked has to keep to, and what such questions ask about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from observatory_storage import UnitOfWork
from observatory_storage.repositories import SpanFilters, TraceFilters
from tests.repositories.populated import DAYS, FIRST, TRACE, partition
from tests.repositories.samples import DAY, SECOND, trace_key

# One of those with few spans: for the other ones the newest rows are as near.
SERVICE = "service5"
OPERATION = "operation3"
KEY = trace_key(TRACE + 1)

THAT_DAY = range(3, 4)
NEWEST = range(DAYS - 1, DAYS)
EVERY_DAY = range(DAYS)
START_TIME, END_TIME = FIRST + 3 * DAY, FIRST + 4 * DAY
WITHIN: dict[str, Any] = {"start_time": START_TIME, "end_time": END_TIME}
A_MINUTE: dict[str, Any] = {"start_time": START_TIME, "end_time": START_TIME + 60 * SECOND}


@dataclass(frozen=True)
class Hot:
    """A question, what answers it, and how far it may reach.

    Attributes:
        indexes: each must be read; by how their names begin.
        days: the days whose partitions may be read, for each partitioned table.
        rows: so many may be read in all.
    """

    name: str
    ask: Callable[[UnitOfWork], object]
    indexes: set[str]
    days: dict[str, range]
    rows: int

    def __str__(self) -> str:
        return self.name


def of_partition(table: str, purpose: str) -> str:
    """How the name of an index begins that the partition of that day got when it closed."""
    return f"ix_{partition(table, THAT_DAY[0])}_{purpose}_"


def spans_by(column: str, value: str) -> Callable[[UnitOfWork], object]:
    asked: dict[str, Any] = {column: value}
    filters = SpanFilters(**asked, limit=5)
    return lambda uow: uow.traces.list_spans(filters)


def traces_by(column: str, value: str) -> Callable[[UnitOfWork], object]:
    asked: dict[str, Any] = {column: value}
    filters = TraceFilters(**asked, limit=5)
    return lambda uow: uow.traces.list(filters)


def spans_of(days: range) -> dict[str, range]:
    return {"trace_spans": days, "trace_events": days}
