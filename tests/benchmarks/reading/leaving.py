"""Measures how fast spans leave the store, as entities and as Arrow, and in how much memory.

Each reading is a process of its own, which runs this module.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from observatory_storage import PostgresConfig, SpanFilters, StorageConfig, StoragePool
from tests.benchmarks.memory import peak_mb
from tests.benchmarks.reading.dataset import DAY
from tests.benchmarks.reading.store import Kept
from tests.benchmarks.technique import address

__all__ = ["Leaving", "leaving"]

_REPOSITORY: Final = Path(__file__).parents[3]
_ROUNDS: Final = 3
_ENTITIES, _ARROW = _WAYS = ("entities", "Arrow")
_PLAIN, _WITH_PAYLOAD = "without JSON columns", "with JSON columns"


@dataclass(frozen=True)
class Leaving:
    """One way to read many spans.

    Attributes:
        columns: with JSON columns, or without.
        days: the number of days whose spans are read.
        seconds: the median of the rounds.
        cpu_us: the processor time of the process for a span, in microseconds, without the server's.
        before_mb: the greatest resident set of the process after it has read a page.
        peak_mb: the greatest resident set at the end, in any round.
        ratio: how many times as fast as entities of the same days.
    """

    way: str
    columns: str
    days: int
    spans: int
    seconds: float
    spans_a_second: float
    cpu_us: float
    before_mb: float
    peak_mb: float
    ratio: float | None


class _Round(NamedTuple):
    spans: int
    seconds: float
    cpu: float
    before_mb: float
    peak_mb: float


def leaving(kept: Kept) -> list[Leaving]:
    """The spans of the last day by each way in turn, and then all spans as Arrow."""
    found = []
    for columns in (_PLAIN, _WITH_PAYLOAD):
        rounds: dict[str, list[_Round]] = {way: [] for way in _WAYS}
        for number in range(_ROUNDS):
            for way in _WAYS[:: 1 if number % 2 else -1]:
                rounds[way].append(_read(kept, way, columns, days=1))
        entities = median(one.seconds for one in rounds[_ENTITIES])
        found += [_summary(way, columns, 1, rounds[way], entities) for way in _WAYS]
    days = kept.data.sizes.days
    every = _read(kept, _ARROW, _PLAIN, days=days)
    return [*found, _summary(_ARROW, _PLAIN, days, [every], None)]


def _summary(
    way: str, columns: str, days: int, rounds: Sequence[_Round], entities: float | None
) -> Leaving:
    (spans,) = {one.spans for one in rounds}
    seconds = median(one.seconds for one in rounds)
    return Leaving(
        way,
        columns,
        days,
        spans,
        seconds,
        spans / seconds,
        median(one.cpu for one in rounds) / spans * 1e6,
        median(one.before_mb for one in rounds),
        max(one.peak_mb for one in rounds),
        None if entities is None else entities / seconds,
    )


def _read(kept: Kept, way: str, columns: str, *, days: int) -> _Round:
    start = kept.data.first_day + (kept.data.sizes.days - days) * DAY
    done = subprocess.run(
        [sys.executable, "-m", __name__, way, columns, start.isoformat()],
        cwd=_REPOSITORY,
        env={**os.environ, "DATABASE_URL": address(kept.pool)},
        check=True,
        stdout=subprocess.PIPE,
    )
    return _Round(*json.loads(done.stdout))


def _counts(pool: StoragePool, way: str, filters: SpanFilters, *, payload: bool) -> Iterator[int]:
    with pool.unit_of_work() as uow:
        spans = uow.traces.iterate_spans(filters, payload=payload)
        if way == _ARROW:
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
        before, started, cpu = peak_mb(), time.perf_counter(), time.process_time()
        count = sum(_counts(pool, way, filters, payload=payload))
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        print(json.dumps([count, seconds, cpu, before, peak_mb()]))


if __name__ == "__main__":
    _main()
