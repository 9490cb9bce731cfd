"""Loads the dataset with `CopyWriter`, batch by batch, from several processes."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from observatory_storage import CopyWriter, PostgresConfig, StorageConfig, StoragePool
from tests.benchmarks.reading.dataset import Dataset

__all__ = ["Loaded", "load"]

_BATCH: Final = 10_000


@dataclass(frozen=True)
class Loaded:
    """Rows of one kind, and the total seconds that all processes spent on them.

    The time includes generating the rows.
    """

    table: str
    rows: int
    seconds: float


@dataclass(frozen=True)
class _Batch:
    """Traces with their spans and logs, or data points, from a number on."""

    kind: str
    first: int
    count: int


def load(url: str, data: Dataset, jobs: int, tell: Callable[[str], None]) -> list[Loaded]:
    """Write the whole dataset in the order of time, as an application would.

    Args:
        jobs: the number of writing processes. With one, this process writes.
    """
    _prepare(url, data)
    CopyWriter(_pool).write_metrics(data.metrics())
    batches = list(_batches(data))
    done: dict[str, Loaded] = {}
    started = time.monotonic()

    def count(index: int, written: list[Loaded]) -> None:
        for one in written:
            before = done.get(one.table, Loaded(one.table, 0, 0))
            done[one.table] = Loaded(
                one.table, before.rows + one.rows, before.seconds + one.seconds
            )
        if len(batches) >= 20 and index % (len(batches) // 10) == 0:
            rows = ", ".join(f"{one.rows:,} {one.table}" for one in done.values())
            tell(f"{time.monotonic() - started:.0f} s: {rows}")

    if jobs == 1:
        for index, batch in enumerate(batches, 1):
            count(index, _write(batch))
    else:
        with ProcessPoolExecutor(
            jobs, multiprocessing.get_context("spawn"), initializer=_prepare, initargs=(url, data)
        ) as executor:
            for index, written in enumerate(executor.map(_write, batches), 1):
                count(index, written)
    _pool.close()
    return list(done.values())


_pool: StoragePool
_data: Dataset


def _prepare(url: str, data: Dataset) -> None:
    """Set up a process once."""
    global _pool, _data  # noqa: PLW0603 - the processes of an executor keep their state so
    _pool = StoragePool(StorageConfig(postgres=PostgresConfig.from_url(url)))
    _data = data


def _batches(data: Dataset) -> Iterator[_Batch]:
    sizes = data.sizes
    traces = max(1, _BATCH * sizes.traces // max(sizes.spans, sizes.logs))
    for first in range(0, sizes.traces, traces):
        yield _Batch("traces", first, min(traces, sizes.traces - first))
    for first in range(0, sizes.points, _BATCH):
        yield _Batch("points", first, min(_BATCH, sizes.points - first))


def _write(batch: _Batch) -> list[Loaded]:
    writer = CopyWriter(_pool)
    started = time.perf_counter()
    if batch.kind == "points":
        written = writer.write_data_points(_data.points(batch.first, batch.count))
        return [Loaded("metric_data_points", written, time.perf_counter() - started)]
    spans: list[dict[str, Any]] = []
    logs: list[dict[str, Any]] = []
    for number in range(batch.first, batch.first + batch.count):
        told = _data.trace(number)
        spans += told.spans
        logs += told.logs
    halfway = (time.perf_counter() - started) / 2
    started = time.perf_counter()
    rows = writer.write_spans(spans)
    of_spans = Loaded("trace_spans", rows, halfway + time.perf_counter() - started)
    started = time.perf_counter()
    rows = writer.write_logs(logs)
    return [of_spans, Loaded("logs", rows, halfway + time.perf_counter() - started)]
