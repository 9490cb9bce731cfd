"""``python -m tests.benchmarks.replicas``: what positions of commits, and waiting for them, cost.

It starts a primary and a standby on this machine.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import Final

from observatory_embedded import EmbeddedPostgres
from observatory_storage import (
    PostgresConfig,
    StorageConfig,
    StoragePool,
    TraceWriter,
    WriterConfig,
)
from tests.repositories.samples import a_span, trace_key

__all__ = ["main"]

ROUNDS: Final = 300


def main() -> None:
    """Measure, and print a table."""
    with (
        EmbeddedPostgres(in_memory=True) as primary,
        EmbeddedPostgres(in_memory=True, standby_of=primary) as standby,
    ):
        alone = StorageConfig(postgres=PostgresConfig.from_url(primary.url))
        both = StorageConfig(postgres=PostgresConfig.from_url(primary.url, read_url=standby.url))
        with StoragePool(alone) as without, StoragePool(both) as pool:
            pool.run_migrations()
            manual = WriterConfig(flush_interval_secs=None)
            with TraceWriter(without, manual) as plain, TraceWriter(pool, manual) as told:
                numbers = iter(range(1, 10**6))

                def flush(writer: TraceWriter) -> None:
                    writer.write_span(a_span(next(numbers), 1))
                    writer.flush()

                def read(*, wait: bool) -> None:
                    lsn = pool.current_lsn() if wait else None
                    with pool.unit_of_work(read_only=True, after=lsn) as uow:
                        uow.traces.get(trace_key(1))

                def write_and_read() -> None:
                    number = next(numbers)
                    told.write_span(a_span(number, 1))
                    with pool.unit_of_work(read_only=True, after=told.flush()) as uow:
                        uow.traces.get(trace_key(number))

                _print(
                    {
                        "flush of one span, without a read server": lambda: flush(plain),
                        "the same with its position": lambda: flush(told),
                        "`current_lsn()` alone": pool.current_lsn,
                        "a trace by its id, read only": lambda: read(wait=False),
                        "`current_lsn()`, and the trace after it": lambda: read(wait=True),
                        "flush, wait for replay, and read the trace": write_and_read,
                    }
                )


def _print(ways: Mapping[str, Callable[[], object]]) -> None:
    """Do each in turn, so that other work on the machine hits all of them alike."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, once in ways.items():
            began = time.perf_counter()
            once()
            took[name].append(time.perf_counter() - began)
    for name, seconds in took.items():
        deciles = statistics.quantiles(seconds, n=10)
        tenth, median = deciles[0], deciles[4]
        sys.stdout.write(f"| {name} | {tenth * 1e3:.2f} ms | {median * 1e3:.2f} ms |\n")


if __name__ == "__main__":
    main()
