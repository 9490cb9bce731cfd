"""Measures large values in their rows and compressed beside them: speed and size, in turn."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Final

from sqlalchemy import text

from observatory_storage import PayloadsConfig, StorageConfig, StoragePool
from observatory_storage.storing.transaction import ensure_partitions
from tests.benchmarks.measure import empty, own_heap_frozen
from tests.benchmarks.ours import COPY, END_TO_END
from tests.benchmarks.technique import Run
from tests.benchmarks.texts import chats, logged_prompts, prompts
from tests.benchmarks.ways_in import OTLP
from tests.benchmarks.workload import Workload, logs, narrow_spans, wide_spans

__all__ = ["Compared", "compare_payloads"]

_WORKLOADS: Final = (prompts, chats, wide_spans, narrow_spans, logged_prompts, logs)
_WAYS: Final = (COPY, END_TO_END, *OTLP)
_SIZE: Final = text(
    "SELECT CAST(sum(pg_total_relation_size(relid)) AS bigint)"
    " FROM unnest(CAST(:tables AS text[])) AS one, pg_partition_tree(one::regclass)"
)


_TABLES: Final = {
    "trace_spans": ["trace_spans", "trace_events", "payload_frames", "traces"],
    "logs": ["logs", "log_frames"],
}


@dataclass(frozen=True)
class Compared:
    """One way of writing a workload, in both modes.

    Attributes:
        inline, compressed: rows committed per second of wall-clock time.
        ratio: compressed divided by inline; the median of the ratios of all rounds.
        inline_bytes, compressed_bytes: of all tables, with TOAST and indexes, for each row.
    """

    workload: str
    technique: str
    rows: int
    batch: int
    rounds: int
    inline: float
    compressed: float
    ratio: float
    inline_bytes: float
    compressed_bytes: float


def compare_payloads(pool: StoragePool, rows: int, batch: int, rounds: int) -> list[Compared]:
    """Write workloads with and without large values, by each way that users take."""
    payloads = PayloadsConfig(mode="compressed")
    config = StorageConfig(postgres=pool.config.postgres, payloads=payloads)
    found = []
    with StoragePool(config) as compressed:
        for made in _WORKLOADS:
            load = made(rows)
            ensure_partitions(pool, load.prepared, framed=True)
            for way in _WAYS:
                with ExitStack() as stack:
                    runs = [
                        stack.enter_context(way.prepare(each, load, batch))
                        for each in (pool, compressed)
                    ]
                    stack.enter_context(own_heap_frozen())
                    found.append(_in_turn(pool, load, way.name, runs, batch=batch, rounds=rounds))
    return found


def _in_turn(
    pool: StoragePool, load: Workload, way: str, runs: Sequence[Run], *, batch: int, rounds: int
) -> Compared:
    times: list[list[float]] = [[], []]
    sizes = [0, 0]
    for turn in range(rounds + 1):
        for mode in (0, 1) if turn % 2 else (1, 0):
            empty(pool, load.table)
            gc.collect()
            started = time.perf_counter()
            runs[mode]()
            took = time.perf_counter() - started
            if turn:  # the first round warms up
                times[mode].append(took)
            else:
                with pool.engine.connect() as connection:
                    sizes[mode] = connection.execute(
                        _SIZE, {"tables": _TABLES[load.table]}
                    ).scalar_one()
    count = len(load.rows)
    return Compared(
        load.name,
        way,
        count,
        batch,
        rounds,
        count / median(times[0]),
        count / median(times[1]),
        median(inline / compressed for inline, compressed in zip(*times, strict=True)),
        sizes[0] / count,
        sizes[1] / count,
    )
