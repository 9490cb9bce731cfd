"""How fast spans go in as the table grows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Any, Final

from sqlalchemy import text

from observatory_storage import CopyWriter, StoragePool
from tests.benchmarks.measure import empty, own_heap_frozen
from tests.benchmarks.workload import batches, moved, wide_span_rows

__all__ = ["Growth", "growth"]

_TEMPLATES: Final = 50_000


@dataclass(frozen=True)
class Growth:
    """A stretch of the way: spans that went into a table that held `before` already.

    Attributes:
        rows_per_second: of the time spent in `CopyWriter.write_spans`.
        client_us: microseconds of this process's CPU a span.
    """

    before: int
    spans: int
    batch: int
    rows_per_second: float
    client_us: float


def growth(
    pool: StoragePool, total: int, batch: int, stretches: int, tell: Callable[[Growth], None]
) -> list[Growth]:
    """Write `total` wide spans into empty tables, one after another, and measure each stretch.

    They are a millisecond apart, so that they fall into one partition as far as a day allows.
    """
    empty(pool, "trace_spans")
    writer = CopyWriter(pool)
    templates = list(wide_span_rows(min(_TEMPLATES, total)))
    results = []
    stretch = total // stretches
    with own_heap_frozen():
        for before in range(0, stretch * stretches, stretch):
            wall = cpu = 0.0
            for at in range(before, before + stretch, len(templates)):
                count = min(len(templates), before + stretch - at)
                spans = list(moved(islice(templates, count), timedelta(milliseconds=at)))
                seconds, used = _write(writer, spans, batch)
                wall += seconds
                cpu += used
            results.append(Growth(before, stretch, batch, stretch / wall, cpu / stretch * 1e6))
            tell(results[-1])
    _check(pool, stretch * stretches)
    empty(pool, "trace_spans")
    return results


def _write(writer: CopyWriter, spans: list[dict[str, Any]], batch: int) -> tuple[float, float]:
    started, used = time.perf_counter(), time.process_time()
    for part in batches(spans, batch):
        writer.write_spans(part)
    return time.perf_counter() - started, time.process_time() - used


def _check(pool: StoragePool, expected: int) -> None:
    statement = "SELECT (SELECT count(*) FROM trace_spans), (SELECT sum(span_count) FROM traces)"
    with pool.engine.connect() as connection:
        stored, counted = connection.execute(text(statement)).one()
    if (stored, counted) != (expected, expected):
        raise AssertionError(f"{stored} spans in traces of {counted}, of {expected} written")
