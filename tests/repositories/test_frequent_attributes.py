"""What is remembered of frequent attributes belongs to the pool that has seen them."""

from __future__ import annotations

from observatory_storage import CopyWriter, StoragePool
from tests.repositories.samples import a_span, statements
from tests.writers.helpers import quick_pool


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
