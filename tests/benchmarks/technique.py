"""The interface of a technique: it prepares a run, which is then timed."""

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
"""Writes the whole workload. Returns the seconds of each flush, if it knows them."""

Prepare = Callable[[StoragePool, Workload, int], AbstractContextManager[Run]]


@dataclass(frozen=True)
class Technique:
    """A technique of writing a workload.

    Attributes:
        name: its name in the report.
        prepare: creates the run for a batch size. This is not timed.
        is_slow: whether it writes only the first fifth of the rows, since it is slow.
    """

    name: str
    prepare: Prepare
    is_slow: bool = False

    def part_of(self, load: Workload) -> Workload:
        """The rows of the workload that it writes."""
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
    """A run that writes the parts in turn, or by threads that each take the next one."""
    if threads == 1:
        yield lambda: [timed(write, part) for part in parts]
        return
    with ThreadPoolExecutor(threads) as executor:
        yield lambda: list(executor.map(lambda part: timed(write, part), parts))


def address(pool: StoragePool) -> str:
    """The URL for drivers other than that of the pool."""
    url = pool.engine.url.set(drivername="postgresql").difference_update_query(["application_name"])
    return url.render_as_string(hide_password=False)
