"""What a way of writing is to the measurements: something that prepares, and is then run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from observatory_storage import StoragePool
from tests.benchmarks.workload import Workload

__all__ = ["Prepare", "Run", "Technique", "address", "in_turn", "timed"]

Run = Callable[[], list[float]]
"""Writes the whole workload; returns the seconds that each flush took, if it can tell."""

Prepare = Callable[[StoragePool, Workload, int], AbstractContextManager[Run]]


@dataclass(frozen=True)
class Technique:
    """One way to write a workload.

    Attributes:
        name: as the report shows it.
        prepare: makes, outside the measured time, what is then measured, for batches of a size.
        is_slow: takes so long for a row that it writes only the first fifth of them.
    """

    name: str
    prepare: Prepare
    is_slow: bool = False

    def part_of(self, load: Workload) -> Workload:
        """What of the workload it writes."""
        return load.first(max(1, len(load.rows) // 5)) if self.is_slow else load


def timed(write: Callable[[Any], object], part: Any) -> float:
    """The seconds that it takes to write a part."""
    started = time.perf_counter()
    write(part)
    return time.perf_counter() - started


@contextmanager
def in_turn(
    write: Callable[[Any], object], parts: Sequence[Any], threads: int = 1
) -> Iterator[Run]:
    """A run that writes the parts one after another, or by threads that take the next one each."""
    if threads == 1:
        yield lambda: [timed(write, part) for part in parts]
        return
    with ThreadPoolExecutor(threads) as executor:
        yield lambda: list(executor.map(lambda part: timed(write, part), parts))


def address(pool: StoragePool) -> str:
    """The URL that drivers other than the pool's own connect to."""
    url = pool.engine.url.set(drivername="postgresql").difference_update_query(["application_name"])
    return url.render_as_string(hide_password=False)
