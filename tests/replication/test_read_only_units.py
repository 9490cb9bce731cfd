"""What a read-only unit of work refuses, on a standby and on a primary, and how it says so."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa

from observatory_storage import (
    Conflict,
    ConnectionLost,
    CopyWriter,
    LogRecord,
    NotFound,
    PoolConfig,
    PostgresConfig,
    ReadOnly,
    StorageConfig,
    StorageError,
    StoragePool,
    TraceWriter,
    UnitOfWork,
    ValidationError,
    WriterConfig,
)
from observatory_storage.storing import Method
from tests.replication.pairs import Address, Database, Pair, altered, ask, execute
from tests.repositories.samples import a_log, a_span, trace_key

WRITING: dict[str, Callable[[UnitOfWork], Any]] = {
    "traces.delete": lambda uow: uow.traces.delete(trace_key(1)),
    "traces.delete_user": lambda uow: uow.traces.delete_user("ann"),
    "traces.delete_session": lambda uow: uow.traces.delete_session("s"),
    "traces.pin": lambda uow: uow.traces.pin(trace_key(1)),
    "traces.unpin": lambda uow: uow.traces.unpin(trace_key(1)),
    "CopyWriter": CopyWriter,
    "INSERT": lambda uow: uow.session.execute(sa.insert(LogRecord).values(**a_log(2))),
    "DELETE": lambda uow: uow.session.execute(sa.delete(LogRecord)),
    "CREATE TABLE": lambda uow: uow.session.execute(sa.text("CREATE TEMPORARY TABLE t (a int)")),
}


@pytest.fixture(params=["standby", "same server"])
def read_pool(request: pytest.FixtureRequest, database: Database) -> Iterator[StoragePool]:
    """A pool whose read-only units of work use the standby, or the primary as all others do."""
    with database.pool() as pool:
        CopyWriter(pool).write_spans([a_span(1, 1, user_id="ann", session_id="s")])
        CopyWriter(pool).write_logs([a_log(1)])
    database.pair.catch_up()
    given = {}
    if request.param == "same server":
        given["postgres"] = PostgresConfig.from_url(database.url)
    with database.pool(**given) as pool:
        yield pool


@pytest.mark.parametrize("name", WRITING)
def test_writing_is_refused_by_name(read_pool: StoragePool, name: str) -> None:
    with (
        read_pool.unit_of_work(read_only=True) as uow,
        pytest.raises(ReadOnly, match=rf"{name}.*this unit of work is read only") as caught,
    ):
        WRITING[name](uow)
    assert not caught.value.retryable
    with read_pool.unit_of_work(read_only=True) as uow:
        assert len(uow.traces.list()) == len(uow.logs.list()) == 1


def test_changed_rows_cannot_be_committed(read_pool: StoragePool) -> None:
    with read_pool.unit_of_work(read_only=True) as uow:
        (record,) = uow.logs.list()
        record.body = "changed"
        with pytest.raises(ReadOnly, match="flush of LogRecord"):
            uow.commit()
    with read_pool.unit_of_work(read_only=True) as uow:
        uow.session.add(LogRecord(id=UUID(int=5), timestamp=datetime.now(UTC), service_name="s"))
        with pytest.raises(ReadOnly, match="flush of LogRecord"):
            uow.commit()
        uow.rollback()
        uow.commit()  # nothing is left to be flushed
        assert [one.body for one in uow.logs.list()] == [None]


def test_other_units_of_work_write_on_the_same_connection(database: Database) -> None:
    one = PoolConfig(max_connections=1, min_connections=0)
    with database.pool(postgres=PostgresConfig.from_url(database.url), pool=one) as pool:
        for number in (1, 2):
            with pool.unit_of_work(read_only=True) as uow:
                assert len(uow.logs.list()) == number - 1
            with pool.unit_of_work() as uow:
                CopyWriter(uow).write_logs([a_log(number)])
                uow.commit()


def test_a_pool_on_a_standby_alone_reads_in_units_of_both_kinds(database: Database) -> None:
    one = PoolConfig(max_connections=1, min_connections=0)
    with database.pool(postgres=PostgresConfig.from_url(database.read_url), pool=one) as pool:
        for read_only in (True, False, True):
            with pool.unit_of_work(read_only=read_only) as uow:
                assert len(uow.logs.list()) == 0


def test_methods_have_arguments_of_any_name(pool: StoragePool) -> None:
    with pool.unit_of_work(read_only=True) as uow:
        assert uow.traces.list_spans(name="chat").rows == ()
        assert uow.metrics.get_by_name(name="queue.length") == []


def test_tails_are_refused(pool: StoragePool) -> None:
    with pool.unit_of_work(read_only=True) as uow:
        tails: dict[str, Callable[[], object]] = {
            "logs.tail": uow.logs.tail,
            "traces.tail_spans": uow.traces.tail_spans,
            "metrics.tail_data_points": uow.metrics.tail_data_points,
        }
        for name, tail in tails.items():
            with pytest.raises(StorageError, match=rf"{re.escape(name)} follows the transactions"):
                tail()


def test_the_tail_of_the_pool_follows_the_primary(pool: StoragePool, pair: Pair) -> None:
    with pair.paused():
        CopyWriter(pool).write_logs([a_log(1)])
        page = next(pool.tail("logs"))
        assert [record.id.int for record in page] == [1]


def test_a_trace_that_is_not_replayed_yet_is_not_found_and_the_error_says_why(
    pool: StoragePool, pair: Pair
) -> None:
    with pair.paused():
        CopyWriter(pool).write_spans([a_span(1, 1)])
        with pool.unit_of_work() as uow:
            uow.traces.get(trace_key(1))
        questions: list[Callable[[UnitOfWork], object]] = [
            lambda uow: uow.traces.get(trace_key(1)),
            lambda uow: uow.traces.get_tree(trace_key(1)),
            lambda uow: uow.logs.get(UUID(int=7)),
        ]
        for missing in questions:
            with pool.unit_of_work(read_only=True) as uow, pytest.raises(NotFound) as caught:
                missing(uow)
            told = str(caught.value)
            assert re.search(r"there is no .*; the standby that was asked has replayed", told)
            assert re.search(
                r"up to [0-9A-F]+/[0-9A-F]+, \d+ bytes less than it has received", told
            )
            assert told.count("standby") == 1
    pair.catch_up()
    with pool.unit_of_work(read_only=True) as uow:
        assert uow.traces.get(trace_key(1)).span_count == 1


def test_not_found_on_a_standby_without_positions_stays_not_found(refusing: Database) -> None:
    with refusing.pool() as pool, pool.unit_of_work(read_only=True) as uow:
        for _ in range(2):
            with pytest.raises(NotFound) as caught:
                uow.traces.get(trace_key(1))
            assert str(caught.value) == f"there is no trace {trace_key(1)}"
        assert len(uow.traces.list()) == 0  # the transaction goes on


def test_not_found_stays_so_if_the_connection_is_lost_before_the_lag_is_asked(
    database: Database,
) -> None:
    with database.pool() as pool, pool.unit_of_work(read_only=True) as uow:

        @sa.event.listens_for(pool.read_engine, "savepoint")
        def lose(connection: sa.Connection, _: str) -> None:
            driver = connection.connection.driver_connection
            assert driver is not None
            ask(
                database.read_url, "SELECT pg_terminate_backend(%s, 60000)", driver.info.backend_pid
            )

        with pytest.raises(NotFound) as caught:
            uow.traces.get(trace_key(1))
        assert str(caught.value) == f"there is no trace {trace_key(1)}"


def test_not_found_on_a_primary_says_no_more_than_that(database: Database) -> None:
    with (
        database.pool(postgres=PostgresConfig.from_url(database.url)) as pool,
        pool.unit_of_work(read_only=True) as uow,
        pytest.raises(NotFound) as caught,
    ):
        uow.traces.get(trace_key(1))
    assert str(caught.value) == f"there is no trace {trace_key(1)}"


def test_a_query_in_the_way_of_replay_is_a_retryable_conflict(
    pool: StoragePool, database: Database
) -> None:
    with altered(database.pair.standby, "max_standby_streaming_delay", "10ms"):
        with pool.unit_of_work(read_only=True) as uow:
            uow.logs.list()  # its lock is held until the end of the transaction
            lock = threading.Thread(target=execute, args=(database.url, "LOCK TABLE logs"))
            lock.start()
            with pytest.raises(Conflict, match="conflict with recovery") as caught:
                uow.session.execute(sa.text("SELECT pg_sleep(60)"))
            lock.join()
        assert caught.value.retryable
        assert "the standby cancelled the query" in str(caught.value)
    with pool.unit_of_work(read_only=True) as uow:
        assert len(uow.logs.list()) == 0


def test_a_stream_that_replay_has_ended_raises_a_retryable_error(
    pool: StoragePool, database: Database
) -> None:
    CopyWriter(pool).write_logs([a_log(number) for number in range(1, 10)])
    database.pair.catch_up()
    with altered(database.pair.standby, "max_standby_streaming_delay", "10ms"):
        for to_arrow in (False, True):
            with pool.unit_of_work(read_only=True) as uow:
                stream = uow.logs.iterate(batch_size=2)
                rows = iter(stream.to_arrow(2)) if to_arrow else stream
                next(rows)
                execute(database.url, "LOCK TABLE logs")
                database.pair.catch_up()
                with pytest.raises(StorageError, match="conflict with recovery") as caught:
                    list(rows)
            assert caught.value.retryable
            assert isinstance(caught.value, Conflict)


def test_a_writer_whose_url_leads_to_a_standby_is_told_and_keeps_its_rows(
    database: Database, tmp_path: Path
) -> None:
    address = Address(tmp_path / "address", database)
    address.lead_to(database.read_url)
    with database.pool(postgres=PostgresConfig.from_url(address.url)) as pool:
        with pytest.raises(ReadOnly, match="connect to the primary") as caught:
            CopyWriter(pool).write_logs([a_log(1)])
        assert not caught.value.retryable
        with TraceWriter(pool, WriterConfig(flush_interval_secs=None)) as writer:
            writer.write_span(a_span(1, 1))
            with pytest.raises(ReadOnly):
                writer.flush()
            assert writer.buffer_stats().buffered == 1
            assert writer.write_stats().retries == 0
            address.lead_to(database.url)
            assert writer.flush().committed == 1


def test_a_writer_with_a_spool_spools_while_its_url_leads_to_a_standby(
    database: Database, tmp_path: Path
) -> None:
    address = Address(tmp_path / "address", database)
    address.lead_to(database.read_url)
    spooling = WriterConfig(flush_interval_secs=None, spool_dir=tmp_path / "spool")
    with database.pool(postgres=PostgresConfig.from_url(address.url)) as pool:
        with TraceWriter(pool, spooling) as writer:
            writer.write_span(a_span(1, 1))
            assert writer.flush().spooled == 1
            address.lead_to(database.url)
        with pool.unit_of_work() as uow:
            assert uow.traces.get(trace_key(1)).span_count == 1


@pytest.mark.parametrize("method", ["copy", "insert"])
def test_a_writer_leaves_connections_whose_server_was_demoted(
    database: Database, method: Method
) -> None:
    """As behind a proxy, which has the same connection lead to another server."""
    with database.pool() as pool:
        CopyWriter(pool).write_logs([a_log(50)])  # makes the partition
        with ExitStack() as connections:  # more of them than there are attempts
            for _ in range(4):
                connection = connections.enter_context(pool.engine.connect())
                connection.exec_driver_sql("SET default_transaction_read_only = on")
                connection.commit()
        rows = [a_log(number) for number in range(1, 10)]
        assert CopyWriter(pool, method=method).write_logs(rows) == 9
        with pool.engine.connect() as connection:
            connection.exec_driver_sql("SET default_transaction_read_only = on")
            connection.commit()
        with pytest.raises(ConnectionLost) as caught, pool.unit_of_work() as uow:
            uow.session.execute(sa.delete(LogRecord))
        assert caught.value.retryable
        with pool.unit_of_work() as uow:
            uow.session.execute(sa.delete(LogRecord))


def pooled_engine(url: str) -> sa.Engine:
    """An engine of an application."""
    return sa.create_engine("postgresql+psycopg://" + url.partition("://")[2])


@pytest.mark.parametrize("method", ["copy", "insert"])
def test_so_does_a_writer_on_the_engine_of_an_application(
    database: Database, method: Method
) -> None:
    engine = pooled_engine(database.url)
    with StoragePool.from_engine(engine) as pool:
        CopyWriter(pool).write_logs([a_log(50)])  # makes the partition
        with ExitStack() as connections:  # as many as an attempt may meet
            for _ in range(2):
                connection = connections.enter_context(engine.connect())
                connection.exec_driver_sql("SET default_transaction_read_only = on")
                connection.commit()
        rows = [a_log(number) for number in range(1, 10)]
        assert CopyWriter(pool, method=method).write_logs(rows) == 9
        with pool.unit_of_work() as uow:
            assert len(uow.logs.list()) == 10
    engine.dispose()


def test_a_new_connection_of_an_application_that_leads_to_a_standby_is_not_retried(
    database: Database,
) -> None:
    engine = pooled_engine(database.read_url)
    with (
        StoragePool.from_engine(engine) as pool,
        pytest.raises(ReadOnly, match="connect to the primary"),
    ):
        CopyWriter(pool, method="insert").write_logs([a_log(1)])
    engine.dispose()


@pytest.mark.parametrize("preferred", ["read-write", "primary"])
def test_several_hosts_lead_writers_to_the_primary_and_readers_to_the_standby(
    database: Database, preferred: str
) -> None:
    both = [psycopg.conninfo.conninfo_to_dict(u) for u in (database.read_url, database.url)]
    name, hosts = both[0]["dbname"], ",".join(str(each["host"]) for each in both)
    url = f"postgresql://postgres@/{name}?host={hosts}&port=5432,5432&target_session_attrs="
    postgres = PostgresConfig.from_url(f"{url}{preferred}", read_url=f"{url}prefer-standby")
    with StoragePool(StorageConfig(postgres=postgres), connect=False) as pool:
        CopyWriter(pool).write_logs([a_log(1)])
        with pool.unit_of_work(read_only=True, after=pool.current_lsn()) as uow:
            assert uow.session.scalar(sa.text("SELECT pg_is_in_recovery()"))
            assert len(uow.logs.list()) == 1


def test_after_needs_a_read_only_unit_of_work_and_a_position(pool: StoragePool) -> None:
    with pytest.raises(ValidationError, match="needs read_only"):
        pool.unit_of_work(after="0/1")
    for wrong in ("nonsense", "0/1/2", 5):
        with pytest.raises(ValidationError, match="must be a FlushResult, or an LSN"):
            pool.unit_of_work(read_only=True, after=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="must be a number of seconds"):
        pool.unit_of_work(read_only=True, after="0/1", after_timeout_secs=-1)
