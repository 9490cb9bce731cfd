"""Measures readers of spans with large values: in their rows, and compressed beside them, in turn.

``python -m tests.benchmarks.payload_reading [spans] [rounds]`` runs it on a server of its own.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from observatory_embedded import EmbeddedPostgres
from observatory_storage import (
    CopyWriter,
    PayloadsConfig,
    PostgresConfig,
    StorageConfig,
    StoragePool,
    UnitOfWork,
    migrate,
)
from observatory_storage.config import PayloadMode
from tests.benchmarks.measure import own_heap_frozen
from tests.benchmarks.texts import chats, prompts
from tests.benchmarks.workload import Workload

__all__ = ["Read", "compare_reading"]

_MODES: Final[tuple[PayloadMode, PayloadMode]] = ("inline", "compressed")
_WARM_UP: Final = 20
_READERS: Final[dict[str, Callable[[UnitOfWork, Any], Any]]] = {
    "get_spans": lambda uow, key: uow.traces.get_spans(key),
    "get_tree, without payload": lambda uow, key: uow.traces.get_tree(key),
    "list_spans, without payload": lambda uow, _: uow.traces.list_spans(limit=50),
    "list_spans(payload=True)": lambda uow, _: uow.traces.list_spans(limit=50, payload=True),
}


@dataclass(frozen=True)
class Read:
    """One reader on one workload, in both modes.

    Attributes:
        inline_ms, compressed_ms: the median of all executions.
        ratio: compressed divided by inline.
    """

    workload: str
    reader: str
    executions: int
    inline_ms: float
    compressed_ms: float
    ratio: float


def compare_reading(pools: Sequence[StoragePool], load: Workload, rounds: int) -> list[Read]:
    """Read the spans of a workload, which both databases have, ten a trace."""
    keys = list(dict.fromkeys(row["trace_id"] for row in load.rows))
    found = []
    for name, read in _READERS.items():
        times: list[list[float]] = [[], []]
        with own_heap_frozen():
            for turn in range(-_WARM_UP, rounds):
                key = keys[turn % len(keys)]
                for which in (0, 1) if turn % 2 else (1, 0):
                    start = time.perf_counter()
                    with pools[which].unit_of_work() as uow:
                        read(uow, key)
                    if turn >= 0:
                        times[which].append(1000 * (time.perf_counter() - start))
        inline, compressed = map(median, times)
        found.append(Read(load.name, name, rounds, inline, compressed, compressed / inline))
    return found


def _measure(count: int, rounds: int) -> None:
    for made in (prompts, chats):
        load = made(count)
        with ExitStack() as stack:
            pools = []
            for mode in _MODES:
                server = stack.enter_context(EmbeddedPostgres())
                config = StorageConfig(
                    postgres=PostgresConfig.from_url(server.url),
                    payloads=PayloadsConfig(mode=mode),
                )
                pool = stack.enter_context(StoragePool(config))
                migrate.upgrade(pool.engine)
                CopyWriter(pool).write_spans(load.rows)
                with pool.engine.connect() as connection:
                    connection.exec_driver_sql("ANALYZE")
                pools.append(pool)
            for read in compare_reading(pools, load, rounds):
                print(
                    f"{read.workload:24} {read.reader:30} {read.inline_ms:8.2f} ms inline"
                    f" {read.compressed_ms:8.2f} ms compressed {read.ratio:6.2f}"
                )


if __name__ == "__main__":
    _measure(*(int(given) for given in sys.argv[1:] or ("2000", "400")))
