"""Of many readers that miss a value at once, one fills it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from observatory_storage import CopyWriter, StoragePool
from tests.cache.conftest import MakePool
from tests.cache.reading import counting, names, some_spans, span_count


@pytest.mark.parametrize(
    ("kind", "read"), [("traces", lambda pool: len(names(pool))), ("statistics", span_count)]
)
def test_one_reader_of_many_fills_a_value(
    make_pool: MakePool, kind: str, read: Callable[[StoragePool], int]
) -> None:
    pool = make_pool()
    CopyWriter(pool).write_spans(some_spans())
    readers, start = 16, threading.Barrier(16)

    def begin(_: int) -> int:
        start.wait()
        return read(pool)

    with counting(pool, kind) as counted, ThreadPoolExecutor(readers) as threads:
        assert list(threads.map(begin, range(readers))) == [3] * readers
    assert counted["stored"] == 1
    assert counted.get("hits", 0) + counted["misses"] == readers


def test_a_reader_does_not_wait_for_one_that_takes_longer_than_itself(
    make_pool: MakePool,
) -> None:
    pool, other = make_pool(), make_pool()
    CopyWriter(pool).write_spans(some_spans())
    answers: list[int] = []

    def filling(*arguments: Any) -> None:
        # While the first reader is filling the value, which takes until the second has an answer.
        if "trace_spans" in arguments[2] and not answers:
            answers.append(0)
            answers.append(span_count(other))

    sa.event.listen(pool.engine, "after_cursor_execute", filling)
    with counting(other, "statistics") as counted:
        assert span_count(pool) == 3
    assert answers == [0, 3]
    assert counted == {"misses": 1}
    with counting(other, "statistics") as counted:
        assert span_count(other) == 3
    assert counted == {"hits": 1}


def test_a_failed_read_leaves_the_lease(make_pool: MakePool) -> None:
    pool = make_pool()
    CopyWriter(pool).write_spans(some_spans())
    failing = [True]

    def fail(*_: Any) -> None:
        if failing:
            raise RuntimeError("out of luck")

    sa.event.listen(pool.engine, "before_cursor_execute", fail)
    with pytest.raises(RuntimeError, match="out of luck"):
        span_count(pool)
    failing.clear()
    with counting(pool, "statistics") as counted:
        assert span_count(pool) == 3
    assert counted == {"misses": 1, "stored": 1}
