"""Measures the memory of a `TraceWriter` in a separate process, which runs this module."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import text

from observatory_storage import (
    PostgresConfig,
    StorageConfig,
    StoragePool,
    TraceWriter,
    WriterConfig,
)
from tests.benchmarks.technique import address
from tests.benchmarks.workload import wide_span_rows

__all__ = ["Memory", "memory_of_writer", "peak_mb"]

_REPOSITORY: Final = Path(__file__).parents[2]


@dataclass(frozen=True)
class Memory:
    """The greatest resident set of a process that writes wide spans as fast as it can make them.

    If the buffer is large enough for all spans, their table is locked until all are written, so the
    buffer fills up.

    Attributes:
        before_mb: after connecting, before the first span.
        peak_mb: at the end.
    """

    spans: int
    batch: int
    max_buffered: int
    before_mb: float
    peak_mb: float


def memory_of_writer(pool: StoragePool, spans: int, batch: int, max_buffered: int) -> Memory:
    """Write so many spans with a buffer of this size, in a new process."""
    command = [sys.executable, "-m", __name__, str(spans), str(batch), str(max_buffered)]
    environment = {**os.environ, "DATABASE_URL": address(pool)}
    done = subprocess.run(
        command, cwd=_REPOSITORY, env=environment, check=True, stdout=subprocess.PIPE
    )
    return Memory(spans, batch, max_buffered, *json.loads(done.stdout))


def peak_mb() -> float:
    """The greatest resident set of this process so far."""
    # After fork and exec, a process starts with the ru_maxrss of its parent.
    status = Path("/proc/self/status")
    if status.exists():
        (peak,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) / 1024
    unit = 1024**2 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _main() -> None:
    spans, batch, max_buffered = map(int, sys.argv[1:])
    config = WriterConfig(batch_size=batch, max_buffered=max_buffered, flush_interval_secs=None)
    database = PostgresConfig.from_url(os.environ["DATABASE_URL"])
    with StoragePool(StorageConfig(postgres=database)) as pool, TraceWriter(pool, config) as writer:
        before = peak_mb()
        with pool.engine.begin() as connection:
            if max_buffered >= spans:
                connection.execute(text("LOCK TABLE trace_spans IN SHARE MODE"))
            writer.write_spans(wide_span_rows(spans))
        writer.flush()
        print(json.dumps([before, peak_mb()]))


if __name__ == "__main__":
    _main()
