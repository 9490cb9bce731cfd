"""Measures how fast spans leave the store, as entities and as Arrow, and in how much memory.

Each reading is a process of its own, which runs this module.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

from observatory_storage import PostgresConfig, SpanFilters, StorageConfig, StoragePool
from tests.benchmarks.memory import peak_mb
from tests.benchmarks.reading.dataset import DAY
from tests.benchmarks.reading.store import Kept
from tests.benchmarks.technique import address

__all__ = ["Leaving", "leaving"]

_REPOSITORY: Final = Path(__file__).parents[3]
_ROUNDS: Final = 2
_WAYS: Final = ("entities", "Arrow")
_WITH_PAYLOAD: Final = "with JSON columns"


@dataclass(frozen=True)
class Leaving:
    """One way to read many spans.

    Attributes:
        columns: with JSON columns, or without.
        seconds: the median of the rounds.
        before_mb: the greatest resident set of the process after it has read a page.
        peak_mb: the greatest resident set at the end, in any round.
        ratio: how many times as fast as entities.
    """

    way: str
    columns: str
    spans: int
    seconds: float
    spans_a_second: float
    before_mb: float
    peak_mb: float
    ratio: float


def leaving(kept: Kept) -> list[Leaving]:
    """All spans without JSON columns, and those of the last day with them, by each way in turn."""
    found = []
    for columns in ("without JSON columns", _WITH_PAYLOAD):
        measured: dict[str, list[Any]] = {way: [] for way in _WAYS}
        for number in range(_ROUNDS):
            for way in _WAYS[:: 1 if number % 2 else -1]:
                measured[way].append(_read(kept, way, columns))
        seconds = {way: median(one[1] for one in measured[way]) for way in _WAYS}
        for way, rounds in measured.items():
            (spans,) = {one[0] for one in rounds}
            found.append(
                Leaving(
                    way,
                    columns,
                    spans,
                    seconds[way],
                    spans / seconds[way],
                    median(one[2] for one in rounds),
                    max(one[3] for one in rounds),
                    seconds["entities"] / seconds[way],
                )
            )
    return found


def _read(kept: Kept, way: str, columns: str) -> Any:
    start = kept.data.open_day if columns == _WITH_PAYLOAD else kept.data.first_day
    arguments = [way, columns, (start - DAY).isoformat()]
    done = subprocess.run(
        [sys.executable, "-m", __name__, *arguments],
        cwd=_REPOSITORY,
        env={**os.environ, "DATABASE_URL": address(kept.pool)},
        check=True,
        stdout=subprocess.PIPE,
    )
    return json.loads(done.stdout)


def _counts(pool: StoragePool, way: str, filters: SpanFilters, *, payload: bool) -> Iterator[int]:
    with pool.unit_of_work() as uow:
        spans = uow.traces.iterate_spans(filters, payload=payload)
        if way == "Arrow":
            yield from (batch.num_rows for batch in spans.to_arrow())
        else:
            yield from (1 for _ in spans)


def _main() -> None:
    way, columns, start = sys.argv[1:]
    payload = columns == _WITH_PAYLOAD
    filters = SpanFilters(start_time=datetime.fromisoformat(start))
    database = PostgresConfig.from_url(os.environ["DATABASE_URL"])
    with StoragePool(StorageConfig(postgres=database)) as pool:
        next(_counts(pool, way, filters, payload=payload))
        before, started = peak_mb(), time.perf_counter()
        count = sum(_counts(pool, way, filters, payload=payload))
        print(json.dumps([count, time.perf_counter() - started, before, peak_mb()]))


if __name__ == "__main__":
    _main()
