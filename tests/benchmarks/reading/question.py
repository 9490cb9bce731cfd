"""The interface of a measured query: by a repository, and by hand-written SQL."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import psycopg

from observatory_storage.models import Base, LogRecord, Trace, TraceSpan
from observatory_storage.tables import PAYLOAD_COLUMNS
from observatory_storage.unit_of_work import UnitOfWork
from tests.benchmarks.reading.dataset import DAY, Dataset

__all__ = [
    "LISTED_LOG_COLUMNS",
    "LISTED_SPAN_COLUMNS",
    "LOG_COLUMNS",
    "PAGE",
    "SPAN_COLUMNS",
    "TRACE_COLUMNS",
    "Arguments",
    "Hand",
    "Question",
    "Rows",
    "listed",
    "plain",
    "window",
]

PAGE: Final = 50

Arguments = Mapping[str, Any]
Rows = Sequence[tuple[Any, ...]]
Hand = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True)
class Question:
    """One query, which is executed with different arguments each time.

    Attributes:
        name: its name in the report.
        draw: draws arguments that occur in the data.
        ask: executes the query by a repository.
        by_hand: executes SQL that a user would write for the same rows with psycopg.
        rows: the rows in the result of `ask` that `by_hand` must also find, in the same order.
        target_ms: the target for the p95, if there is one.
        paged: whether its work is limited by a page, so that it must not grow with the tables.
    """

    name: str
    draw: Callable[[Dataset, random.Random], Arguments]
    ask: Callable[[UnitOfWork, Arguments], Any]
    by_hand: Callable[[Hand, Arguments], Rows]
    rows: Callable[[Any], Rows]
    target_ms: float | None = None
    paged: bool = True


def _names(model: type[Base]) -> tuple[str, ...]:
    return tuple(column.key for column in model.__table__.columns)


TRACE_COLUMNS: Final = _names(Trace)
SPAN_COLUMNS: Final = _names(TraceSpan)
# The columns that lists load by default.
_SPAN_PAYLOAD: Final = {
    *("attributes", "links", "resource_attributes", "scope_attributes", "otlp"),
    *PAYLOAD_COLUMNS,
}
_LOG_PAYLOAD: Final = {"resource_attributes", "scope_attributes", "otlp"}
LISTED_SPAN_COLUMNS: Final = tuple(name for name in SPAN_COLUMNS if name not in _SPAN_PAYLOAD)
LOG_COLUMNS: Final = _names(LogRecord)
LISTED_LOG_COLUMNS: Final = tuple(name for name in LOG_COLUMNS if name not in _LOG_PAYLOAD)


def listed(columns: Sequence[str], alias: str = "t") -> str:
    """The columns as the list of a SELECT."""
    return ", ".join(f"{alias}.{column}" for column in columns)


def plain(entities: Iterable[Base], columns: Sequence[str]) -> Rows:
    """The entities as rows of a SELECT of these columns."""
    return [tuple(getattr(entity, column) for column in columns) for entity in entities]


def window(data: Dataset, chance: random.Random, days: int) -> dict[str, Any]:
    """A random range of this many days in the data, which does not begin at midnight."""
    wide = min(days, data.sizes.days)
    spare = (data.sizes.days - wide) * 86_400
    start = data.first_day + timedelta(seconds=int(chance.random() * spare))
    return {"start_time": start, "end_time": start + wide * DAY}
