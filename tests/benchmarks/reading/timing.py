"""Times queries by the repository, by hand and on a small database, alternating in one run."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import permutations
from statistics import median
from typing import Any, Final

import psycopg

from observatory_storage import StoragePool
from tests.benchmarks.measure import own_heap_frozen, percentile
from tests.benchmarks.reading.question import Arguments, Hand, Question, Rows
from tests.benchmarks.reading.store import Kept
from tests.benchmarks.technique import address

__all__ = ["Times", "hand", "timed"]

_WARM_UP: Final = 5
_FEWEST: Final = 10


@dataclass(frozen=True)
class Times:
    """The durations of a query in milliseconds.

    Attributes:
        executions: the executions of each of the three.
        rows: the median number of rows.
        p50_ms, p95_ms: of the repository, with a unit of work for each execution.
        by_hand_p50_ms: of psycopg on an open connection, in a transaction.
        ratio: the median of the repository divided by that of psycopg.
        small_rows, small_p50_ms: of the repository on the small database.
        growth: the median of the repository divided by that on the small database.
        target_ms: the target for p95, if there is one.
    """

    question: str
    paged: bool
    executions: int
    rows: int
    p50_ms: float
    p95_ms: float
    target_ms: float | None
    by_hand_p50_ms: float
    by_hand_p95_ms: float
    ratio: float
    small_rows: int
    small_p50_ms: float
    growth: float


def timed(
    question: Question, large: Kept, small: Kept, connection: Hand, *, most: int, seconds: float
) -> Times:
    """Execute the query with different arguments, until the count or the time is reached.

    Raises:
        AssertionError: the repository and the hand-written statement found different rows.
    """
    chance = random.Random(question.name)
    _same(question, large, connection, question.draw(large.data, chance))
    runs: dict[str, Callable[[Arguments], Any]] = {
        "repository": lambda given: _asked(question, large.pool, given),
        "by hand": lambda given: _by_hand(question, connection, given),
        "small": lambda given: _asked(question, small.pool, given),
    }
    # Drawn before anything is timed, since drawing would change the caches of the processor.
    drawn = [
        (question.draw(large.data, chance), question.draw(small.data, chance))
        for _ in range(_WARM_UP + most)
    ]
    took: dict[str, list[float]] = {name: [] for name in runs}
    rows: dict[str, list[int]] = {name: [] for name in runs}
    deadline = time.perf_counter() + seconds
    # The second finds the rows cached, so each of them is first equally often.
    orders = list(permutations(runs))
    with own_heap_frozen():
        for turn in range(-min(_WARM_UP, most), most):
            of_large, of_small = drawn[turn]
            given = {"repository": of_large, "by hand": of_large, "small": of_small}
            for name in orders[turn % len(orders)]:
                started = time.perf_counter()
                found = runs[name](given[name])
                seconds_taken = time.perf_counter() - started
                if turn >= 0:
                    took[name].append(seconds_taken * 1e3)
                    rows[name].append(len(found if name == "by hand" else question.rows(found)))
            if turn >= _FEWEST - 1 and time.perf_counter() > deadline:
                break
    middle = {name: median(values) for name, values in took.items()}
    return Times(
        question=question.name,
        paged=question.paged,
        executions=len(took["repository"]),
        rows=round(median(rows["by hand"])),
        p50_ms=middle["repository"],
        p95_ms=percentile(took["repository"], 0.95),
        target_ms=question.target_ms,
        by_hand_p50_ms=middle["by hand"],
        by_hand_p95_ms=percentile(took["by hand"], 0.95),
        ratio=middle["repository"] / middle["by hand"],
        small_rows=round(median(rows["small"])),
        small_p50_ms=middle["small"],
        growth=middle["repository"] / middle["small"],
    )


@contextmanager
def hand(pool: StoragePool) -> Iterator[Hand]:
    """A connection for hand-written statements.

    It prepares no statements, like the pool, so only the layers above the driver are compared.
    """
    with psycopg.connect(address(pool), autocommit=True, prepare_threshold=None) as connection:
        yield connection


def _asked(question: Question, pool: StoragePool, given: Arguments) -> Any:
    with pool.unit_of_work() as uow:
        return question.ask(uow, given)


def _by_hand(question: Question, connection: Hand, given: Arguments) -> Rows:
    with connection.transaction():
        return question.by_hand(connection, given)


def _same(question: Question, kept: Kept, connection: Hand, given: Arguments) -> None:
    rows = list(question.rows(_asked(question, kept.pool, given)))
    by_hand = list(_by_hand(question, connection, given))
    if rows != by_hand:
        raise AssertionError(
            f"{question.name}: {len(rows)} rows by the repository are not the"
            f" {len(by_hand)} by hand; arguments: {dict(given)}"
        )
