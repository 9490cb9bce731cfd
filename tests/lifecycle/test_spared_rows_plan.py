"""The rows of spared traces are found by the key of the partition, never by reading it."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from observatory_storage.lifecycle.partition_removal import columns_of
from observatory_storage.lifecycle.spared_rows import SparedRows, spared_traces
from observatory_storage.pool import StoragePool
from tests import citus
from tests.lifecycle.days import DAY, a_call, noon, partitions, write_spans

pytestmark = citus.not_there("shards have plans of their own")

_SCANS = sa.text("SELECT seq_scan, idx_scan FROM pg_stat_xact_user_tables WHERE relname = :name")


@pytest.mark.parametrize("is_analysed", [True, False])
@pytest.mark.parametrize("table", ["trace_spans", "trace_events"])
def test_a_partition_is_not_read_for_its_spared_rows(
    pool: StoragePool, database_url: str, table: str, is_analysed: bool
) -> None:
    write_spans(pool, *(a_call(trace, 1, noon(10)) for trace in range(1, 2001)))
    (name,) = partitions(database_url, table)
    with pool.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM traces WHERE trace_id NOT LIKE '%1'"))
        if is_analysed:
            connection.execute(sa.text(f"ANALYZE {name}, traces"))
        connection.execute(sa.text(f"CREATE TABLE kept (LIKE {table})"))
    rows = SparedRows("public", table, name)
    with pool.engine.begin() as connection:
        # What the connection has done before may be counted too.
        before = connection.execute(_SCANS, {"name": name}).one()
        spared = spared_traces(connection, noon(11), noon(10) + DAY)
        assert len(rows.versions(connection, spared)) == len(spared) == 125
        rows.copy_to(connection, "kept", spared, columns_of(connection, "public", table))
        assert rows.starts(connection, spared) == [noon(10)]
        scans = connection.execute(_SCANS, {"name": name}).one()
        assert scans.seq_scan == before.seq_scan
        assert scans.idx_scan == before.idx_scan + 3 * 125
        assert connection.scalar(sa.text("SELECT count(*) FROM kept")) == 125
