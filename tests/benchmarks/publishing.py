"""Measures what publishing to Redis Streams costs the writers: with it and without, in turn."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from pydantic import SecretStr

from observatory_embedded import EmbeddedValkey
from observatory_storage import (
    CacheConfig,
    LogWriter,
    RedisConfig,
    StorageConfig,
    StoragePool,
    StreamsConfig,
    TraceWriter,
    WriterConfig,
)
from observatory_storage.config import StreamSignal
from observatory_storage.storing.transaction import ensure_partitions
from tests.benchmarks.measure import empty, own_heap_frozen
from tests.benchmarks.workload import Workload, logs, wide_spans

__all__ = ["Published", "compare_publishing"]

_BATCH: Final = 1_000
_SIGNALS: Final[dict[str, tuple[StreamSignal, ...]]] = {
    "trace_spans": ("spans", "traces"),
    "logs": ("logs",),
}
_MODES: Final = ("columns", "payloads")


@dataclass(frozen=True)
class Published:
    """A writer with and without a stream.

    Attributes:
        mode: what is published: the columns alone, or payloads too.
        without, with_stream: rows per second of wall-clock time, until the writer is closed.
        ratio: with the stream divided by without; the median of the ratios of all rounds.
        client_us: microseconds of CPU time of this process that publishing adds to each row.
        lag_ms: how long after the writer was closed the last row was in Redis.
        lost: rows that were not published.
    """

    workload: str
    mode: str
    rows: int
    rounds: int
    without: float
    with_stream: float
    ratio: float
    client_us: float
    lag_ms: float
    lost: int


def compare_publishing(pool: StoragePool, rows: int, rounds: int) -> list[Published]:
    """Write spans and logs with and without a stream, in batches of 1,000."""
    with EmbeddedValkey() as valkey:
        return [
            _compare(pool, valkey.url, made(rows), mode, rounds)
            for made in (wide_spans, logs)
            for mode in _MODES
        ]


def _compare(pool: StoragePool, url: str, load: Workload, mode: str, rounds: int) -> Published:
    ensure_partitions(pool, load.prepared)
    streams = StreamsConfig(signals=_SIGNALS[load.table], payloads=mode == "payloads")
    config = StorageConfig(
        postgres=pool.config.postgres,
        redis=RedisConfig(url=SecretStr(url)),
        streams=streams,
        cache=CacheConfig(enabled=False),  # what it costs writers, `caching` measures
    )
    walls: dict[bool, list[float]] = {False: [], True: []}
    cpu: dict[bool, list[float]] = {False: [], True: []}
    lags = []
    with StoragePool(config) as publishing, own_heap_frozen():
        for turn in range(2 * (rounds + 1)):
            streams_now = bool(turn % 2) ^ bool(turn // 2 % 2)
            empty(pool, load.table)
            wall, used, lag = _round(publishing if streams_now else pool, load)
            if turn > 1:  # the first ones warm up
                walls[streams_now].append(wall)
                cpu[streams_now].append(used)
                lags += [lag] if streams_now else []
        lost = publishing.stream_stats().lost_rows
    count = len(load.rows)
    ratios = [a / b for a, b in zip(walls[False], walls[True], strict=True)]
    return Published(
        *(load.name, mode, count, rounds),
        without=count / median(walls[False]),
        with_stream=count / median(walls[True]),
        ratio=median(ratios),
        client_us=1e6 * (median(cpu[True]) - median(cpu[False])) / count,
        lag_ms=1e3 * median(lags),
        lost=lost,
    )


def _round(pool: StoragePool, load: Workload) -> tuple[float, float, float]:
    used, started = time.process_time(), time.perf_counter()
    _write(pool, load.table, load.rows)
    wall = time.perf_counter() - started
    while pool.stream_stats().waiting_rows:
        time.sleep(0.0005)
    lag = time.perf_counter() - started - wall
    return wall, time.process_time() - used, lag


def _write(pool: StoragePool, table: str, rows: Sequence[Any]) -> None:
    config = WriterConfig(batch_size=_BATCH)
    if table == "logs":
        with LogWriter(pool, config) as writer:
            writer.write_logs(rows)
        return
    with TraceWriter(pool, config) as spans:
        spans.write_spans(rows)
