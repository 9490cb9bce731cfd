"""Pages at the beginning and at the end of a list of all rows."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from observatory_storage import LogFilters, Page, SpanFilters, TraceFilters
from observatory_storage.ids import trace_uuid, uuid_of
from observatory_storage.repositories.reading.cursors import encode_cursor, to_plain
from observatory_storage.unit_of_work import UnitOfWork
from tests.benchmarks.measure import percentile
from tests.benchmarks.reading.dataset import Dataset, Told
from tests.benchmarks.reading.question import PAGE
from tests.benchmarks.reading.store import Kept

__all__ = ["Keyset", "keysets"]

_WARM_UP: Final = 5
# The part of the list at each end in which pages are read.
_END: Final = 0.01


@dataclass(frozen=True)
class Keyset:
    """Pages of a list, newest first, in milliseconds.

    Attributes:
        rows: in the whole list.
        start_p50_ms: pages in the newest hundredth of it.
        end_p50_ms: pages in the oldest hundredth.
    """

    name: str
    rows: int
    executions: int
    start_p50_ms: float
    start_p95_ms: float
    end_p50_ms: float
    end_p95_ms: float
    ratio: float


@dataclass(frozen=True)
class _List:
    rows: Callable[[Dataset], int]
    page: Callable[[UnitOfWork, str], Page[Any]]
    cursor: Callable[[Told], str]


_TRACES, _SPANS, _LOGS = TraceFilters(limit=PAGE), SpanFilters(limit=PAGE), LogFilters(limit=PAGE)


def _cursor(name: str, filters: Any, *key: Any) -> str:
    # A walk of millions of rows would give the same.
    return encode_cursor(name, filters.query(), [to_plain(value) for value in key])


def _of_trace(told: Told) -> str:
    return _cursor("traces", _TRACES, told.asked.start, trace_uuid(told.asked.trace_id))


def _of_span(told: Told) -> str:
    key = trace_uuid(told.asked.trace_id)
    root = told.spans[0]
    return _cursor("spans", _SPANS, root["start_time"], 0, key, root["span_id"])


def _of_log(told: Told) -> str:
    log = told.logs[0]
    return _cursor("logs", _LOGS, log["timestamp"], 0, uuid_of(log["id"], "id"))


_LISTS: Final = {
    "traces": _List(
        lambda data: data.sizes.traces,
        lambda uow, after: uow.traces.list(_TRACES, after=after),
        _of_trace,
    ),
    "spans": _List(
        lambda data: data.sizes.spans,
        lambda uow, after: uow.traces.list_spans(_SPANS, after=after),
        _of_span,
    ),
    "logs": _List(
        lambda data: data.sizes.logs,
        lambda uow, after: uow.logs.list(_LOGS, after=after),
        _of_log,
    ),
}


def keysets(kept: Kept, executions: int) -> list[Keyset]:
    """Read pages at both ends of each list, in turn."""
    return [_measured(name, one, kept, executions) for name, one in _LISTS.items()]


def _measured(name: str, one: _List, kept: Kept, executions: int) -> Keyset:
    chance = random.Random(name)
    traces = kept.data.sizes.traces
    few = max(1, int(traces * _END))
    took: dict[str, list[float]] = {"start": [], "end": []}
    for turn in range(-min(_WARM_UP, executions), executions):
        for where in ("start", "end") if turn % 2 else ("end", "start"):
            number = chance.randrange(few)
            told = kept.data.trace(traces - 1 - number if where == "start" else number)
            cursor = one.cursor(told)
            started = time.perf_counter()
            with kept.pool.unit_of_work() as uow:
                one.page(uow, cursor)
            if turn >= 0:
                took[where].append((time.perf_counter() - started) * 1e3)
    return Keyset(
        name=name,
        rows=one.rows(kept.data),
        executions=executions,
        start_p50_ms=median(took["start"]),
        start_p95_ms=percentile(took["start"], 0.95),
        end_p50_ms=median(took["end"]),
        end_p95_ms=percentile(took["end"], 0.95),
        ratio=median(took["end"]) / median(took["start"]),
    )
