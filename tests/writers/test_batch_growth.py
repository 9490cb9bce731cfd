"""Where tables have shards, batches grow while others are being written."""

from __future__ import annotations

from typing import Any

import pytest

from observatory_storage.config import PostgresConfig
from observatory_storage.rows import Row, prepare_log
from observatory_storage.writers import WriterConfig
from observatory_storage.writers.buffer import Bounds, Buffer
from observatory_storage.writers.config import largest_batch
from tests.writers.helpers import a_log


def logs(count: int) -> list[Row]:
    return [prepare_log(a_log(number)) for number in range(count)]


def taken(buffer: Buffer) -> int:
    """The number of rows of the batch that is written now; 0 if none is due."""
    batch = buffer.take([])
    if batch is None:
        return 0
    buffer.settle(batch)
    return len(batch.rows)


def test_a_batch_grows_while_another_is_written_and_no_longer() -> None:
    buffer = Buffer(Bounds(2, 6, at_once=1, capacity=100))
    with buffer.lock:
        buffer.add(logs(2))
        first = buffer.take([])
        assert first is not None
        buffer.add(logs(5))
        assert (len(first.rows), buffer.take([])) == (2, None)
        buffer.add(logs(8))
        buffer.settle(first)
        assert [taken(buffer) for _ in range(4)] == [6, 6, 0, 0]
        assert buffer.weight == 1
        buffer.add(logs(1))
        assert taken(buffer) == 2


def test_a_batch_that_has_grown_is_written_when_the_other_one_ends() -> None:
    buffer = Buffer(Bounds(2, 6, at_once=1, capacity=100))
    with buffer.lock:
        buffer.add(logs(2))
        first = buffer.take([])
        assert first is not None
        buffer.add(logs(3))
        buffer.settle(first)
        assert taken(buffer) == 3


def test_a_batch_does_not_grow_while_another_thread_could_write_it() -> None:
    buffer = Buffer(Bounds(2, 6, at_once=2, capacity=100))
    with buffer.lock:
        buffer.add(logs(5))
        first, second = buffer.take([]), buffer.take([])
        assert (first and len(first.rows), second and len(second.rows)) == (2, 2)
        buffer.add(logs(4))
        assert buffer.take([]) is None


@pytest.mark.parametrize(
    ("settings", "server", "expected"),
    [
        ({}, {"layout": "plain"}, 1000),
        ({}, {"layout": "citus", "shard_count": 8}, 8000),
        ({"batch_size": 999}, {"layout": "citus", "shard_count": 8}, 999),
        ({"max_buffered": 3000}, {"layout": "citus", "shard_count": 8}, 3000),
        ({"batch_size": 60_000}, {"layout": "citus", "shard_count": 2}, 100_000),
    ],
)
def test_the_largest_batch_depends_on_the_shards(
    settings: dict[str, Any], server: dict[str, object], expected: int
) -> None:
    postgres = PostgresConfig.model_validate({"database": "a", **server})
    assert largest_batch(WriterConfig(**settings), postgres) == expected
