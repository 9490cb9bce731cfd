"""Measures calls with few rows, to find from which number on COPY is faster than INSERT."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from statistics import median
from typing import Final, Literal

from observatory_storage import CopyWriter, StoragePool
from observatory_storage.storing.transaction import ensure_partitions
from tests.benchmarks.measure import empty, own_heap_frozen
from tests.benchmarks.ours import write_at_once
from tests.benchmarks.technique import timed
from tests.benchmarks.workload import Workload, batches

__all__ = ["SmallBatch", "rows_for", "small_batches"]

_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128)
_METHODS: Final[tuple[Literal["insert", "copy"], ...]] = ("insert", "copy")


@dataclass(frozen=True)
class SmallBatch:
    """Medians of calls of `CopyWriter` with a few rows. Each call is a transaction.

    Attributes:
        rows: rows in a call.
        calls: the number of measured calls of each method.
    """

    workload: str
    rows: int
    calls: int
    insert_ms: float
    copy_ms: float


def small_batches(pool: StoragePool, load: Workload, calls: int) -> list[SmallBatch]:
    """Time calls of both methods in turn, on the same tables."""
    ensure_partitions(pool, load.prepared)
    writers = [
        (method, write_at_once(CopyWriter(pool, method=method), load.table)) for method in _METHODS
    ]
    results = []
    with own_heap_frozen():
        for size in _SIZES:
            parts = batches(load.rows, size)[: 2 * (calls + _warm_up(calls))]
            taken: dict[str, list[float]] = {method: [] for method in _METHODS}
            empty(pool, load.table)
            gc.collect()
            for index, part in enumerate(parts):
                method, write = writers[index % 2]
                taken[method].append(timed(write, part))
            insert_ms, copy_ms = (median(taken[m][_warm_up(calls) :]) * 1e3 for m in _METHODS)
            results.append(SmallBatch(load.name, size, calls, insert_ms, copy_ms))
    return results


def rows_for(calls: int) -> int:
    """The number of rows that these calls need."""
    return 2 * (calls + _warm_up(calls)) * max(_SIZES)


def _warm_up(calls: int) -> int:
    return 1 + calls // 10
