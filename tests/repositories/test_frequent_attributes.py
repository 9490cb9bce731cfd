"""What is remembered of frequent and rare attributes belongs to the pool that has seen them."""

from __future__ import annotations

import pytest

from observatory_storage import CopyWriter, StoragePool
from observatory_storage.repositories.traces import candidates
from tests import citus
from tests.repositories.samples import a_span, statements
from tests.writers.helpers import quick_pool

pytestmark = citus.not_there("shards have plans of their own")


def searches_indexes(pool: StoragePool) -> bool:
    """Whether a list by the attribute searches the indexes beside the first traces."""
    with pool.unit_of_work() as uow, statements(pool.engine) as seen:
        assert len(uow.traces.list(attributes={"tenant": 1}, limit=5)) == 5
    return any("found AS MATERIALIZED" in statement for statement in seen)


def test_another_database_has_frequent_attributes_of_its_own(
    pool: StoragePool, empty_database_url: str
) -> None:
    spans = [a_span(n, n, attributes={"tenant": 1}) for n in range(1, 9)]
    with quick_pool(empty_database_url) as other:
        other.run_migrations()
        for each in (pool, other):
            CopyWriter(each).write_spans(spans)
        assert searches_indexes(pool)
        assert not searches_indexes(pool)
        assert searches_indexes(other)
        assert not searches_indexes(other)


def walks(pool: StoragePool, order: int, expected: int) -> bool:
    """Whether a list by the attribute reads the first traces beside the indexes."""
    with pool.unit_of_work() as uow, statements(pool.engine) as seen:
        found = uow.traces.list(attributes={"order": order}, limit=10)
        assert [trace.start_time for trace in found] == sorted(
            (trace.start_time for trace in found), reverse=True
        )
        assert len(found) == expected
    return any("walked AS" in statement for statement in seen)


def test_the_first_traces_are_not_read_for_an_attribute_that_was_rare(
    pool: StoragePool, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "_MOST", 8)
    spans = [a_span(n, n, attributes={"order": min(4, n)}) for n in range(1, 40)]
    with quick_pool(empty_database_url) as other:
        other.run_migrations()
        for each in (pool, other):
            CopyWriter(each).write_spans(spans)
        assert walks(pool, 1, 1)
        assert not walks(pool, 2, 1)
        assert not walks(pool, 5, 0)
        # A value that turns out to be frequent is found in slices, and the next search reads again.
        assert not walks(pool, 4, 10)
        assert walks(pool, 3, 1)
        assert not walks(pool, 3, 1)
        assert walks(other, 3, 1)
