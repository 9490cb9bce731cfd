"""Splitting beside others: locks, snapshots, roles, other runs, and schemas of any name."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from observatory_embedded import EmbeddedPostgres
from observatory_storage import migrate
from observatory_storage.errors import Conflict, PoolError, StorageError, Timeout
from observatory_storage.lifecycle import short_locks, splitting
from observatory_storage.lifecycle.closing import close_partitions
from observatory_storage.lifecycle.run import Deadline, Run
from observatory_storage.lifecycle.splitting import split_partitions
from observatory_storage.pool import StoragePool
from observatory_storage.writers import CopyWriter
from tests import citus
from tests.lifecycle.full_month import (
    DAY,
    DAYS,
    FIRST,
    HOUR,
    NOW,
    Ending,
    logs,
    make_month,
    rows_in_place,
    tables,
)
from tests.lifecycle.pools import pool_with, ranges, scalar
from tests.writers.helpers import (
    a_log,
    contents,
    count,
    eventually,
)

pytestmark = citus.not_there("partitions are not split")


def test_the_partitions_that_a_writer_remembers_may_be_gone(
    filled: StoragePool, database_url: str
) -> None:
    with pool_with(database_url) as other:
        writer = CopyWriter(other)
        writer.write_logs(logs(500, 1))
        split_partitions(Run(filled, NOW))
        writer.write_logs(logs(600, 50))
        with filled.engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE logs_p20260105")
        writer.write_logs([a_log(timestamp=FIRST + 4 * DAY + HOUR)])
    assert list(ranges(filled, "logs"))[3:6] == ["p20260104", "p20260105", "p20260106"]
    assert rows_in_place(filled, "logs", "timestamp")


def test_a_table_that_is_in_use_is_left_for_the_next_run(
    filled: StoragePool, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(short_locks, "_ATTEMPTS", 2)
    monkeypatch.setattr(short_locks, "LOCK_TIMEOUT", "20ms")
    with psycopg.connect(database_url) as connection:
        connection.execute("SELECT count(*) FROM logs")
        result = split_partitions(Run(filled, NOW))
        assert [failure.partition for failure in result.failed] == ["logs_p202601"]
        assert isinstance(result.failed[0].error, Conflict)
        assert not result.is_complete
        # Whoever comes now does not wait.
        CopyWriter(filled).write_logs(logs(400, 5))
    assert split_partitions(Run(filled, NOW)).is_complete
    assert count(filled, "logs") == 205


def test_a_transaction_that_keeps_an_older_snapshot_is_waited_for(
    filled: StoragePool, database_url: str
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT count(*) FROM traces")
        eventually(lambda: bool(scalar(filled, splitting._HAS_OLD_SNAPSHOTS.text)))
        result = split_partitions(Run(filled, NOW))
        assert "kept a snapshot" in str(result.failed[0].error)
        found = connection.execute("SELECT count(*) FROM logs").fetchone()
        assert found == (200,)
    assert split_partitions(Run(filled, NOW)).is_complete


def test_a_partition_that_takes_too_long_to_look_through_is_not_locked(
    filled: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splitting, "_SCAN_TIMEOUT", "1ms")
    with filled.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO logs (id, timestamp, service_name) SELECT md5(n::text)::uuid,"
            " '2026-01-05Z', 's' FROM generate_series(1, 50000) n"
        )
    (failure,) = split_partitions(Run(filled, NOW)).failed
    assert isinstance(failure.error, Timeout)
    assert "logs_p202601 cannot be looked through within 1ms" in str(failure.error)


def test_one_run_splits_at_a_time(filled: StoragePool) -> None:
    with splitting._alone(filled):
        result = split_partitions(Run(filled, NOW))
        assert (result.split, result.is_complete) == ((), False)
    results: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: results.append(len(split_partitions(Run(filled, NOW)).split))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(results) == 1
    assert len(results) == len(threads)
    assert count(filled, "logs") == 200


def test_a_pool_of_one_connection_is_refused(filled: StoragePool) -> None:
    limits = filled.config.pool.model_copy(update={"max_connections": 1})
    config = filled.config.model_copy(update={"pool": limits})
    with StoragePool(config) as one, pytest.raises(PoolError, match="two connections"):
        split_partitions(Run(one, NOW))


@pytest.mark.parametrize("schema", ['Odd: "schema" 50%', "выше"])
def test_schemas_of_any_name_work(empty_database_url: str, schema: str) -> None:
    with pool_in(empty_database_url, schema) as pool:
        pool.run_migrations()
        make_month(pool, "logs")
        CopyWriter(pool).write_logs(logs(0, 60))
        before = contents(pool)["logs"]
        assert not split_partitions(Run(pool, NOW, Ending(2))).is_complete
        CopyWriter(pool).write_logs([a_log(timestamp=FIRST)])
        assert split_partitions(Run(pool, NOW)).is_complete
        assert list(ranges(pool, "logs")) == DAYS
        assert set(before) < set(contents(pool)["logs"])
        assert close_partitions(Run(pool, NOW)).is_complete
        migrate.downgrade(pool.engine, schema)


@contextmanager
def pool_in(url: str, schema: str) -> Iterator[StoragePool]:
    with pool_with(url, split_rows=50) as pool:
        postgres = pool.config.postgres.model_copy(update={"schema_name": schema})
        config = pool.config.model_copy(update={"postgres": postgres})
    with StoragePool(config) as other:
        yield other


def test_a_role_that_does_not_own_the_table_gets_an_error(
    embedded_server: EmbeddedPostgres,
) -> None:
    with pool_with(embedded_server.url) as owner:
        owner.run_migrations()
        make_month(owner, "logs")
        CopyWriter(owner).write_logs(logs(0, 60))
        with owner.engine.begin() as connection:
            connection.exec_driver_sql("CREATE ROLE visitor LOGIN")
            connection.exec_driver_sql("GRANT ALL ON ALL TABLES IN SCHEMA public TO visitor")
        with (
            pool_with(embedded_server.url, username="visitor", split_rows=50) as theirs,
            pytest.raises(StorageError, match=r"visitor does not own logs_p202601"),
        ):
            split_partitions(Run(theirs, NOW))
        assert count(owner, "partition_splits") == 0


def test_a_partition_that_is_dropped_during_the_run_does_not_end_it(
    filled: StoragePool, database_url: str
) -> None:
    make_month(filled, "metric_data_points")

    class Dropping(Deadline):
        """Drops the partition when it is asked before the rows are copied."""

        is_dropped = False

        @property
        def is_over(self) -> bool:
            if not self.is_dropped and count(filled, "partition_splits"):
                self.is_dropped = True
                with psycopg.connect(database_url) as connection:
                    connection.execute("DROP TABLE logs_p202601")
            return False

    assert split_partitions(Run(filled, NOW, Dropping())).is_complete
    assert tables(filled) == {"metric_data_points_p202601"}
    assert count(filled, "partition_splits") == 0
