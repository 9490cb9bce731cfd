"""Measures the rate of writing spans while the table grows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Any, Final

from sqlalchemy import text

from observatory_embedded import temporary_database
from observatory_storage import CopyWriter, PostgresConfig, StorageConfig, StoragePool
from tests.benchmarks.measure import empty, own_heap_frozen, settle
from tests.benchmarks.technique import address
from tests.benchmarks.workload import batches, moved, wide_span_rows

__all__ = ["Growth", "growth"]

_TEMPLATES: Final = 50_000
_COMPARED: Final = 5  # one of this many blocks is also written to nearly empty tables


@dataclass(frozen=True)
class Growth:
    """One stretch: spans that were written to a table that already had `before` spans.

    Attributes:
        rows_per_second: rows divided by the seconds spent in `CopyWriter.write_spans`.
        client_us: microseconds of CPU time of this process for each span.
        empty_per_second: the rate of a part of the spans, which was also written to tables that
            were empty when the stretch began, alternating with the growing table.
    """

    before: int
    spans: int
    batch: int
    rows_per_second: float
    client_us: float
    empty_per_second: float

    @property
    def of_empty(self) -> float:
        """The rate divided by that of the empty tables, at the same time on the same server."""
        return self.rows_per_second / self.empty_per_second


def growth(
    pool: StoragePool,
    total: int,
    days: int,
    batch: int,
    tell: Callable[[Growth], None],
) -> list[Growth]:
    """Write `total` wide spans into empty tables, day after day, and measure each stretch.

    Before each stretch the tables are vacuumed and a checkpoint is made. The speed of a machine
    still changes within minutes, so a part of each stretch is also written to tables that do not
    grow.
    """
    empty(pool, "trace_spans")
    templates = list(wide_span_rows(min(_TEMPLATES, total)))
    results = []
    stretches = max(2, total // 1_000_000)
    stretch = total // stretches
    apart = timedelta(days=1) / (total / days)
    with _another_database(pool) as other, own_heap_frozen():
        for before in range(0, stretch * stretches, stretch):
            settle(pool, "trace_spans")
            empty(other, "trace_spans")
            growing, nearly_empty = _Timed(CopyWriter(pool)), _Timed(CopyWriter(other))
            for block, first in enumerate(range(before, before + stretch, len(templates))):
                count = min(len(templates), before + stretch - first)
                when = first * apart - timedelta(days=days - 1)
                spans = list(moved(islice(templates, count), when))
                growing.write(spans, batch)
                if block % _COMPARED == 0:
                    nearly_empty.write(spans, batch)
            results.append(
                Growth(
                    before,
                    stretch,
                    batch,
                    growing.rows_per_second,
                    growing.client_us,
                    nearly_empty.rows_per_second,
                )
            )
            tell(results[-1])
    _check(pool, stretch * stretches)
    empty(pool, "trace_spans")
    return results


class _Timed:
    """A writer and the time that its writing took."""

    def __init__(self, writer: CopyWriter) -> None:
        self._writer = writer
        self._rows = 0
        self._wall = self._cpu = 0.0

    def write(self, spans: list[dict[str, Any]], batch: int) -> None:
        started, used = time.perf_counter(), time.process_time()
        for part in batches(spans, batch):
            self._writer.write_spans(part)
        self._rows += len(spans)
        self._wall += time.perf_counter() - started
        self._cpu += time.process_time() - used

    @property
    def rows_per_second(self) -> float:
        return self._rows / self._wall

    @property
    def client_us(self) -> float:
        return self._cpu / self._rows * 1e6


@contextmanager
def _another_database(pool: StoragePool) -> Iterator[StoragePool]:
    """A database on the same server with the same tables."""
    with (
        temporary_database(address(pool)) as database,
        StoragePool(StorageConfig(postgres=PostgresConfig.from_url(database))) as other,
    ):
        other.run_migrations()
        yield other


def _check(pool: StoragePool, expected: int) -> None:
    statement = "SELECT (SELECT count(*) FROM trace_spans), (SELECT sum(span_count) FROM traces)"
    with pool.engine.connect() as connection:
        stored, counted = connection.execute(text(statement)).one()
    if (stored, counted) != (expected, expected):
        raise AssertionError(f"{stored} spans in traces of {counted}, of {expected} written")
