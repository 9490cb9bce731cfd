"""What only a cluster shows: layouts, deadlocks over shards, commits over nodes, tails, estimates.

The other tests of behaviour run there too; docs/citus.md has the command.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from observatory_storage import UnitOfWork, migrate, storage_size
from observatory_storage.config import PostgresConfig, StorageConfig
from observatory_storage.errors import ConfigError, MigrationError, StorageError
from observatory_storage.lifecycle.retention_plan import total_bytes
from observatory_storage.models import LogFrame
from observatory_storage.pool import StoragePool
from observatory_storage.repositories import SpanFilters
from observatory_storage.tables import DISTRIBUTED, REFERENCE_TABLES
from observatory_storage.writers import CopyWriter, LogWriter, WriterConfig
from tests import citus
from tests.payloads.logged import a_record, write_logs
from tests.servers import Server
from tests.writers.helpers import START, a_log, a_span, contents, trace_id

pytestmark = pytest.mark.skipif(not citus.URL, reason=citus.WITHOUT)

DISTRIBUTIONS = "SELECT logicalrelid::text, partmethod::text FROM pg_dist_partition"
TOTALS = (
    "SELECT count(*) FILTER (WHERE t.span_count IS DISTINCT FROM s.n OR t.error_count"
    " IS DISTINCT FROM s.errors) FROM traces t FULL JOIN (SELECT trace_id, count(*) AS n,"
    " count(*) FILTER (WHERE status = 'error') AS errors FROM trace_spans GROUP BY trace_id) s"
    " ON s.trace_id = t.id"
)


def config_of(url: str, **postgres: Any) -> StorageConfig:
    return StorageConfig(postgres=PostgresConfig.from_url(url, **postgres))


def scalar(pool: StoragePool, statement: str) -> Any:
    with pool.engine.connect() as connection:
        return connection.scalar(sa.text(statement))


def distributed(pool: StoragePool) -> dict[str, str]:
    with pool.engine.connect() as connection:
        rows = connection.execute(sa.text(DISTRIBUTIONS)).all()
    return {name: method for name, method in rows if "_p2" not in name}


EXPECTED = {
    **{table.name: "h" for table in DISTRIBUTED},
    **dict.fromkeys(REFERENCE_TABLES, "n"),
}


def test_the_tables_are_distributed_and_again_after_a_downgrade(pool: StoragePool) -> None:
    assert distributed(pool) == EXPECTED
    CopyWriter(pool).write_spans([a_span(1, 1)])
    migrate.downgrade(pool.engine)
    pool.run_migrations()
    pool.run_migrations()
    assert distributed(pool) == EXPECTED


def test_rows_move_to_the_shards_when_a_populated_database_is_distributed(
    empty_database_url: str,
) -> None:
    with StoragePool(config_of(empty_database_url, layout="plain")) as plain:
        plain.run_migrations()
        CopyWriter(plain).write_spans([a_span(n, n) for n in range(1, 41)])
    with StoragePool(config_of(empty_database_url, shard_count=2), connect=False) as pool:
        with pytest.raises(ConfigError, match="run `observatory-storage migrate`"):
            scalar(pool, "SELECT 1")
        pool.run_migrations()
        assert distributed(pool) == EXPECTED
        assert scalar(pool, "SELECT count(*) FROM trace_spans") == 40
        CopyWriter(pool).write_spans([a_span(n, n) for n in range(30, 51)])
        assert scalar(pool, TOTALS) == 0


def programs_of(version: str) -> Path:
    """The folder of the programs that belong to a server."""
    for folder in os.get_exec_path():
        with contextlib.suppress(OSError):
            command = [f"{folder}/pg_dump", "--version"]
            told = subprocess.run(command, capture_output=True, check=False, text=True).stdout
            if f" {int(version) // 10_000}." in told:
                return Path(folder)
    pytest.skip("pg_dump of the server's version is not on the PATH")


def test_a_dump_is_the_store_of_one_server(pool: StoragePool, tmp_path: Path) -> None:
    CopyWriter(pool).write_spans([a_span(n, n) for n in range(1, 41)])
    CopyWriter(pool).write_logs([a_log(n) for n in range(40)])
    programs, dump = programs_of(scalar(pool, "SHOW server_version_num")), tmp_path / "dump"
    source = str(pool.engine.url.set(drivername="postgresql"))
    subprocess.run([programs / "pg_dump", "-Fc", "-n", "public", "-f", dump, source], check=True)
    with Server(str(citus.URL), embedded=False).database("template0") as url:  # without Citus
        into = ["--clean", "--if-exists", "--no-owner", "--exit-on-error", "--dbname", url]
        subprocess.run([programs / "pg_restore", *into, dump], check=True)
        with StoragePool(config_of(url, layout="plain")) as plain:
            assert contents(plain) == contents(pool)
            CopyWriter(plain).write_spans([a_span(n, n) for n in range(30, 51)])
            assert scalar(plain, TOTALS) == 0


def test_a_pool_of_the_other_layout_is_refused(database_url: str) -> None:
    with pytest.raises(ConfigError, match="DB_LAYOUT=citus"):
        StoragePool(config_of(database_url, layout="plain"))
    plain = StoragePool(config_of(database_url, layout="plain"), connect=False)
    with plain, pytest.raises(MigrationError, match="DB_LAYOUT=citus"):
        plain.run_migrations()


@pytest.fixture
def again(pool: StoragePool) -> list[dict[str, Any]]:
    """Spans of sixty traces, which are stored."""
    spans = [a_span(trace, trace * 10 + n) for trace in range(1, 61) for n in range(4)]
    CopyWriter(pool).write_spans(spans)
    return spans


def test_four_threads_send_spans_again_beside_an_erasure(
    pool: StoragePool, again: list[dict[str, Any]]
) -> None:
    stop = threading.Event()

    def send(number: int) -> None:
        for attempt in range(4):
            changed = [
                {**span, "status": "error" if (attempt + number) % 2 else "ok", "user_id": "u"}
                for span in (again if number % 2 else reversed(again))
            ]
            CopyWriter(pool).write_spans(changed)

    def erase() -> None:
        while not stop.is_set():
            try:
                with pool.unit_of_work() as work:
                    work.traces.delete_user("u")
                    work.commit()
            except StorageError as error:
                if not error.retryable:  # a deadlock with writers is, as on one server
                    raise

    with ThreadPoolExecutor() as threads:
        erasing = threads.submit(erase)
        try:
            list(threads.map(send, range(4)))
        finally:
            stop.set()
        erasing.result()
    CopyWriter(pool).write_spans(again)
    assert scalar(pool, TOTALS) == 0
    assert scalar(pool, "SELECT count(*) FROM trace_spans") == len(again)


def test_killed_backends_lose_and_double_nothing(pool: StoragePool) -> None:
    done = threading.Event()

    def write(number: int) -> None:
        for part in range(5):
            first = 1 + number * 1000 + part * 100
            CopyWriter(pool).write_spans([a_span(n, n) for n in range(first, first + 40)])

    def kill() -> None:
        engine = sa.create_engine(pool.engine.url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            while not done.wait(0.15):
                connection.execute(
                    sa.text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE datname = current_database() AND state = 'active'"
                        " AND pid <> pg_backend_pid() AND query LIKE 'COPY%'"
                    )
                )
        engine.dispose()

    patient = pool.config.model_copy(
        update={"retry": pool.config.retry.model_copy(update={"max_attempts": 30})}
    )
    pool.config = patient
    with ThreadPoolExecutor() as threads:
        killing = threads.submit(kill)
        try:
            list(threads.map(write, range(3)))
        finally:
            done.set()
        killing.result()
    assert scalar(pool, "SELECT count(*) FROM trace_spans") == 3 * 5 * 40
    assert scalar(pool, TOTALS) == 0


def test_a_tail_returns_the_rows_of_all_shards_once(pool: StoragePool) -> None:
    writer = CopyWriter(pool)
    writer.write_logs([a_log(n, body=str(n)) for n in range(1, 21)])
    with pool.unit_of_work() as work:
        page = work.logs.tail()
    seen = [int(record.body or 0) for record in page]
    assert seen == list(range(1, 21))
    with pool.unit_of_work() as open_one:
        CopyWriter(open_one).write_logs([a_log(n, body=str(n)) for n in range(21, 31)])
        writer.write_logs([a_log(n, body=str(n)) for n in range(31, 41)])
        with pool.unit_of_work() as work:
            page = work.logs.tail(page.next)
        assert not page  # those of the open transaction are older
        open_one.commit()
    found: list[int] = []
    while len(found) < 20:
        with pool.unit_of_work() as work:
            page = work.logs.tail(page.next, limit=7)
        found += [int(record.body or 0) for record in page]
    assert sorted(found) == list(range(21, 41))


def test_a_tail_waits_for_what_a_worker_has_not_committed(pool: StoragePool) -> None:
    CopyWriter(pool).write_logs([a_log(1)])
    with pool.unit_of_work() as work:
        page = work.logs.tail()
    database = pool.config.postgres.database
    host, port = citus.CitusServer(str(citus.URL), embedded=False).workers[0]
    with psycopg.connect(host=host, port=port, dbname=database, user="postgres") as worker:
        worker.tpc_begin("citus_0_1_1_1")
        worker.execute("SELECT pg_current_xact_id()")
        worker.tpc_prepare()
        CopyWriter(pool).write_logs([a_log(2)])
        with pool.unit_of_work() as work:
            assert not work.logs.tail(page.next)
        worker.tpc_rollback()
    with pool.unit_of_work() as work:
        assert len(work.logs.tail(page.next)) == 1


def test_a_record_waits_for_its_frame_that_another_worker_commits(pool: StoragePool) -> None:
    write_logs(pool, [a_record(1, 1)])
    with pool.engine.begin() as connection:
        frames = connection.execute(sa.delete(LogFrame).returning(*LogFrame.__table__.c)).all()
    asked: list[str] = []

    def commit(connection: sa.Connection, _: Any, statement: str, *rest: Any) -> None:
        if "pg_prepared_xacts" in statement and not asked:
            asked.append(statement)
            with pool.engine.begin() as other:
                other.execute(sa.insert(LogFrame), [dict(row._mapping) for row in frames])

    sa.event.listen(pool.engine, "before_cursor_execute", commit)
    try:
        with pool.unit_of_work() as work:
            (record,) = work.logs.list()
    finally:
        sa.event.remove(pool.engine, "before_cursor_execute", commit)
    assert asked
    assert record.payload_frame is None
    assert record.attributes == a_record(1, 1)["attributes"]


def test_size_limits_see_the_shards(pool: StoragePool) -> None:
    empty = total_bytes(pool)
    CopyWriter(pool).write_logs([a_log(n, body=f"{n} " * 2000) for n in range(1, 401)])
    assert total_bytes(pool) > empty + 400_000


def test_a_tail_is_refused_to_who_does_not_see_all_transactions(pool: StoragePool) -> None:
    with pool.unit_of_work() as work:
        work.session.execute(sa.text("SET LOCAL ROLE pg_read_all_data"))
        with pytest.raises(StorageError, match="GRANT pg_read_all_stats"):
            work.logs.tail()


def test_estimates_come_from_the_shards(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(n, n) for n in range(1, 301)])
    with pool.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE traces"))
    with pool.unit_of_work() as work:
        estimated = work.traces.list(total="estimated").total
    assert estimated is not None
    assert 200 <= estimated <= 400


def test_the_hot_questions_go_to_the_shards(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(n, n) for n in range(1, 11)])
    plans: list[str] = []

    def explain(connection: sa.Connection, _: Any, statement: str, values: Any, *rest: Any) -> None:
        if statement.startswith("SELECT") and "trace" in statement:
            explained = connection.connection.driver_connection.execute(  # type: ignore[union-attr]
                f"EXPLAIN {statement}", values
            )
            plans.append("\n".join(row[0] for row in explained))

    questions: tuple[Callable[[UnitOfWork], object], ...] = (
        lambda work: work.traces.list(),
        lambda work: work.traces.get_by_trace_id(trace_id(1)),
        lambda work: work.traces.get_spans(trace_id(1), with_events=True),
        lambda work: work.traces.list_spans(SpanFilters(status="error")),
    )
    sa.event.listen(pool.engine, "before_cursor_execute", explain)
    try:
        for ask in questions:
            with pool.unit_of_work() as work:
                ask(work)
    finally:
        sa.event.remove(pool.engine, "before_cursor_execute", explain)
    assert len(plans) >= len(questions)
    for plan in plans:
        assert "Citus Adaptive" in plan
        assert "Distributed Subplan" not in plan


def test_a_unit_of_work_that_has_deleted_makes_a_partition_itself(pool: StoragePool) -> None:
    """Workers wait for what it has deleted, and nobody would see that it waits for them."""
    later = START + timedelta(days=40)
    CopyWriter(pool).write_spans([a_span(n, 1) for n in range(1, 9)])
    with pool.unit_of_work() as work:
        assert work.traces.delete(trace_id(2)).spans == 1
        CopyWriter(work).write_spans([a_span(99, 1, start_time=later, end_time=later)])
        work.commit()
    assert scalar(pool, "SELECT count(*) FROM trace_spans") == 8
    CopyWriter(pool).write_spans([a_span(100, 1, start_time=later, end_time=later)])


def test_the_size_of_tables_is_refused(pool: StoragePool) -> None:
    with pytest.raises(StorageError, match="citus_shards"):
        storage_size(pool)


def test_batches_of_a_buffered_writer_grow(pool: StoragePool) -> None:
    with LogWriter(pool, WriterConfig(flush_interval_secs=None)) as writer:
        writer.write_logs([a_log(number) for number in range(20_000)])
        assert writer.flush().committed == 20_000
        assert writer.write_stats().batches < 20
    assert scalar(pool, "SELECT count(*) FROM logs") == 20_000
