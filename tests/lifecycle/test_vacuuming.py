"""Plain tables are vacuumed when many of their rows are dead."""

from __future__ import annotations

import sqlalchemy as sa

from observatory_storage.lifecycle.run import Deadline, Run
from observatory_storage.lifecycle.vacuuming import VacuumedTables, vacuum_tables
from observatory_storage.pool import StoragePool
from tests import citus
from tests.lifecycle.days import a_call, noon, write_spans
from tests.writers.helpers import eventually

pytestmark = citus.not_there("the coordinator does not see dead rows")


def test_a_table_with_many_dead_rows_is_vacuumed(pool: StoragePool) -> None:
    write_spans(pool, *(a_call(trace, 1, noon(1)) for trace in range(1, 601)))
    assert vacuum_tables(Run(pool)) == VacuumedTables()
    with pool.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM traces"))
    # A session reports its statistics when it is idle, at most once a second.
    eventually(lambda: vacuum_tables(Run(pool)).tables == ("traces",))
    with pool.engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT pg_relation_size('traces')")) == 0
    eventually(lambda: vacuum_tables(Run(pool)) == VacuumedTables())


def test_without_time_nothing_is_vacuumed(pool: StoragePool) -> None:
    write_spans(pool, *(a_call(trace, 1, noon(1)) for trace in range(1, 601)))
    with pool.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM traces"))
    left = VacuumedTables(is_complete=False)
    eventually(lambda: vacuum_tables(Run(pool, deadline=Deadline(0))) == left)
