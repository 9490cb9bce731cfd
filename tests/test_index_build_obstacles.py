"""What may stand in the way of building the indexes of closed partitions."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from observatory_embedded import EmbeddedPostgres
from observatory_storage import (
    Conflict,
    CopyWriter,
    PoolConfig,
    PoolError,
    PostgresConfig,
    StorageConfig,
    StorageError,
    StoragePool,
    index_builder,
    layout,
)
from observatory_storage.index_kinds import CLOSED
from observatory_storage.layout import advisory_key
from tests.repositories.samples import DAY, a_span
from tests.two_days import EVENTS, LOGS, SPANS, START, TODAY, build, indexes


def test_second_run_raises_conflict(two_days: StoragePool) -> None:
    key = advisory_key("indexes", two_days.schema)
    with two_days.engine.begin() as connection:
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))
        with pytest.raises(Conflict, match="another process is building indexes") as refused:
            build(two_days)
        assert refused.value.retryable
    assert build(two_days).built


def test_locked_partition_does_not_delay_the_others(
    two_days: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_builder, "_LOCK_TIMEOUT", "50ms")
    with two_days.engine.begin() as connection:
        connection.exec_driver_sql(f"LOCK TABLE {LOGS} IN ROW EXCLUSIVE MODE")
        result = build(two_days)
    assert {failure.index.partition for failure in result.failed} == {LOGS}
    assert isinstance(result.failed[0].error, Conflict)
    assert {index.partition for index in result.built} == {SPANS, EVENTS}
    again = build(two_days)
    assert [index.partition for index in again.built] == [LOGS] * len(result.failed)
    assert not again.failed
    assert all(indexes(two_days.engine).values())


def test_idle_transaction_does_not_block_a_build(
    two_days: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_builder, "_LOCK_TIMEOUT", "1s")
    with two_days.unit_of_work() as uow:
        uow.session.connection(execution_options={"isolation_level": "READ COMMITTED"})
        uow.traces.list_spans()
        uow.session.execute(sa.text("SET LOCAL lock_timeout = 0"))  # holds no snapshot from here on
        assert not build(two_days).failed


def test_partition_that_is_dropped_meanwhile_is_skipped(
    two_days: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = layout.named

    def and_gone(connection: sa.Connection, schema: str, table: str) -> dict[str, layout.Range]:
        gone = layout.Range(TODAY - DAY, TODAY)
        return {**named(connection, schema, table), f"{table}_p{TODAY - DAY:%Y%m%d}": gone}

    monkeypatch.setattr(layout, "named", and_gone)
    result = build(two_days)
    assert not result.failed
    assert len(result.built) == len(CLOSED)


def test_role_that_does_not_own_the_tables_gets_an_error(embedded_server: EmbeddedPostgres) -> None:
    owner = PostgresConfig.from_url(embedded_server.url)
    visitor = PostgresConfig.from_url(embedded_server.url, username="visitor")
    with StoragePool(StorageConfig(postgres=owner)) as pool:
        pool.run_migrations()
        CopyWriter(pool).write_spans([a_span(1, 1, START)])
        with pool.engine.begin() as connection:
            connection.exec_driver_sql("CREATE ROLE visitor LOGIN")
            connection.exec_driver_sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO visitor")
        with (
            StoragePool(StorageConfig(postgres=visitor)) as theirs,
            pytest.raises(StorageError, match=SPANS) as refused,
        ):
            build(theirs)
        assert not refused.value.retryable
        assert not indexes(pool.engine)


def test_pool_of_one_connection_is_refused(database_url: str) -> None:
    config = StorageConfig(
        postgres=PostgresConfig.from_url(database_url),
        pool=PoolConfig(min_connections=1, max_connections=1),
    )
    with StoragePool(config) as pool, pytest.raises(PoolError, match="two connections") as refused:
        build(pool)
    assert not refused.value.retryable


def test_statement_timeouts_do_not_stop_a_build(database_url: str) -> None:
    config = StorageConfig(
        postgres=PostgresConfig.from_url(database_url).model_copy(
            update={"statement_timeout_ms": 60_000}
        )
    )
    with StoragePool(config) as pool:
        CopyWriter(pool).write_spans([a_span(1, 1, START)])
        assert len(build(pool).built) > 0
