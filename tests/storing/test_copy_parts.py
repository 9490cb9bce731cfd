"""Rows are copied by several short COPYs: the server inserts those of one while others follow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from sqlalchemy import text

from observatory_storage.pool import StoragePool
from observatory_storage.rows import prepare_all
from observatory_storage.storing.binary_copy import copy_parts
from observatory_storage.storing.conflict_rules import target_of
from observatory_storage.storing.transaction import ensure_partitions
from observatory_storage.tables import LOGS, Values
from tests.writers.helpers import a_log

_TARGET = target_of(LOGS)
_COUNT = "SELECT count(*) FROM logs"


def _parts(pool: StoragePool, sizes: Sequence[int]) -> list[list[Values]]:
    rows = prepare_all(LOGS, [a_log(index) for index in range(sum(sizes))])
    ensure_partitions(pool, rows)
    remaining = iter(rows)
    return [[next(remaining).values for _ in range(size)] for size in sizes]


@pytest.mark.parametrize(
    "sizes", [[], [0], [3], [0, 1, 0], [200], [100, 100, 1], [150] * 4, [100] * 21, [1500]]
)
def test_all_parts_are_copied(pool: StoragePool, sizes: list[int]) -> None:
    parts = _parts(pool, sizes)
    with pool.engine.begin() as connection:
        copy_parts(connection, _TARGET, parts, _TARGET.target)
        assert connection.scalar(text(_COUNT)) == sum(sizes)


@pytest.mark.parametrize("failing", range(5))
def test_after_an_error_of_a_part_the_connection_can_go_on(pool: StoragePool, failing: int) -> None:
    parts = _parts(pool, [100] * 5)

    def broken() -> Iterator[Any]:
        yield from parts[:failing]
        raise ZeroDivisionError

    with pool.engine.begin() as connection:
        with pytest.raises(ZeroDivisionError), connection.begin_nested():
            copy_parts(connection, _TARGET, broken(), _TARGET.target)
        assert connection.scalar(text(_COUNT)) == 0
        copy_parts(connection, _TARGET, parts, _TARGET.target)
    with pool.engine.connect() as connection:
        assert connection.scalar(text(_COUNT)) == 500


@pytest.mark.parametrize("repeated", range(5))
def test_an_error_of_the_server_is_raised_whichever_copy_meets_it(
    pool: StoragePool, repeated: int
) -> None:
    parts = _parts(pool, [100] * 5)
    with pool.engine.begin() as connection:
        copy_parts(connection, _TARGET, [parts[repeated]], _TARGET.target)
        with pytest.raises(Exception, match="duplicate key"), connection.begin_nested():
            copy_parts(connection, _TARGET, parts, _TARGET.target)
        assert connection.scalar(text(_COUNT)) == 100
