"""Measures the memory for reading a large trace, in a separate process that runs this module."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from observatory_storage import (
    CopyWriter,
    PostgresConfig,
    SpanFilters,
    StorageConfig,
    StoragePool,
)
from tests.benchmarks.memory import peak_mb
from tests.benchmarks.reading.dataset import DAY
from tests.benchmarks.reading.prose import prose
from tests.benchmarks.reading.spans import Asked, spans_of
from tests.benchmarks.technique import address

__all__ = ["Walk", "walks", "write_large_trace"]

_REPOSITORY: Final = Path(__file__).parents[3]
_BATCH: Final = 1_000
_TRACE_ID: Final = f"{20:032x}"
_SEED: Final = 20


@dataclass(frozen=True)
class Walk:
    """One way to read all spans of a trace: with their attributes, or as a tree without them.

    Attributes:
        way: the method.
        before_mb: the greatest resident set of the process after it has read one page.
        peak_mb: the greatest resident set at the end.
    """

    way: str
    spans: int
    seconds: float
    before_mb: float
    peak_mb: float


def write_large_trace(pool: StoragePool, spans: int) -> None:
    """A trace of this many spans, in a part of yesterday."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    chance = random.Random(_SEED)
    asked = Asked(0, _TRACE_ID, today - DAY, "user", "session", "eu-west")
    rows = spans_of(asked, spans, chance, prose(_SEED))
    # Like an agent that runs for hours, but not beyond the day.
    for index, row in enumerate(rows):
        row["start_time"] = asked.start + index * (DAY / 2 / spans)
        row["end_time"] = row["start_time"] + timedelta(milliseconds=5)
    CopyWriter(pool).write_spans(rows)


def walks(pool: StoragePool) -> list[Walk]:
    """Read the large trace page by page and as a whole, each in a new process."""
    return [_walked(pool, way) for way in ("iterate_spans", "get_spans", "get_tree")]


def _walked(pool: StoragePool, way: str) -> Walk:
    environment = {**os.environ, "DATABASE_URL": address(pool)}
    done = subprocess.run(
        [sys.executable, "-m", __name__, way],
        cwd=_REPOSITORY,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
    )
    return Walk(way, *json.loads(done.stdout))


def _spans(pool: StoragePool, way: str) -> Iterator[Any]:
    with pool.unit_of_work() as uow:
        if way == "get_spans":
            yield from uow.traces.get_spans(_TRACE_ID)
        else:
            yield from uow.traces.iterate_spans(
                SpanFilters(trace_id=_TRACE_ID), _BATCH, payload=True
            )


def _main() -> None:
    (way,) = sys.argv[1:]
    database = PostgresConfig.from_url(os.environ["DATABASE_URL"])
    with StoragePool(StorageConfig(postgres=database)) as pool:
        with pool.unit_of_work() as uow:
            uow.traces.list_spans(SpanFilters(trace_id=_TRACE_ID, limit=_BATCH), payload=True)
        before, started = peak_mb(), time.perf_counter()
        if way == "get_tree":
            with pool.unit_of_work() as uow:
                count = len(uow.traces.get_tree(_TRACE_ID).nodes)
        else:
            count = sum(1 for span in _spans(pool, way) if span.attributes is not None)
        print(json.dumps([count, time.perf_counter() - started, before, peak_mb()]))


if __name__ == "__main__":
    _main()
