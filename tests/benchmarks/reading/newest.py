"""Measures whether slices with indexes slow down who writes newer rows into their partition."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Final

from observatory_embedded import temporary_database
from observatory_storage import CopyWriter, PostgresConfig, StorageConfig, StoragePool
from observatory_storage.index_builder import IndexBuilder
from tests.benchmarks.reading.dataset import DAY, Dataset, Sizes

__all__ = ["Newest", "written_beside"]

_MOST_IN_BATCH: Final = 500  # traces


@dataclass(frozen=True)
class Newest:
    """Rows that are newer than all slices of their partition.

    Attributes:
        older: the spans that are in the partition before.
        spans: the spans that are written in one batch, with their log records.
        plain_ms, beside_ms: the median duration of a batch, without slices and with them.
        ratio: how much faster it is with slices: 1 is no difference.
    """

    older: int
    spans: int
    plain_ms: float
    beside_ms: float
    ratio: float


def written_beside(server: str, older: int, batches: int) -> Newest:
    """Write batches into two databases in turn, one of which has slices of what was there."""
    batch = min(_MOST_IN_BATCH, older // 10)
    traces = older // 10 + batches * batch
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - DAY
    data = Dataset(
        Sizes(spans=10 * traces, traces=traces, logs=10 * traces, points=1, days=1), today
    )
    with ExitStack() as stack:
        pools = []
        for _ in range(2):
            url = stack.enter_context(temporary_database(server))
            config = StorageConfig(postgres=PostgresConfig.from_url(url))
            pools.append(stack.enter_context(StoragePool(config)))
            pools[-1].run_migrations()
            for first in range(0, older // 10, batch):
                _write(pools[-1], data, first, batch)
        plain, beside = pools
        _index(beside, today, data.trace(older // 10).asked.start)
        took: dict[StoragePool, list[float]] = {plain: [], beside: []}
        for number in range(batches):
            for pool in pools[:: 1 if number % 2 else -1]:
                took[pool].append(_write(pool, data, older // 10 + number * batch, batch))
    plain_ms, beside_ms = (median(took[pool]) * 1e3 for pool in pools)
    return Newest(older, 10 * batch, plain_ms, beside_ms, plain_ms / beside_ms)


def _index(pool: StoragePool, start: datetime, end: datetime) -> None:
    builder = IndexBuilder(pool)
    with builder.opened():
        for table in ("trace_spans", "logs"):
            partition = f"{table}_p{start:%Y%m%d}"
            for kind in builder.kinds_of_slices(table, partition):
                builder.build(kind.of_slice(start, end), partition)
    if len(builder.done.built) != 4:
        raise AssertionError(f"not all indexes were built: {builder.done}")


def _write(pool: StoragePool, data: Dataset, first: int, count: int) -> float:
    """Write a batch of traces; how many seconds that took, without making the rows."""
    told = [data.trace(first + number) for number in range(count)]
    started = time.perf_counter()
    CopyWriter(pool).write_spans([span for one in told for span in one.spans])
    CopyWriter(pool).write_logs([log for one in told for log in one.logs])
    return time.perf_counter() - started
