"""Migrations while others migrate or use the tables."""

from __future__ import annotations

import multiprocessing
import threading
from typing import Any

import pytest
import sqlalchemy as sa

from observatory_storage import migrate, migration_locks
from observatory_storage.config import PoolConfig, PostgresConfig, StorageConfig
from observatory_storage.errors import MigrationError
from observatory_storage.layout import advisory_key
from observatory_storage.pool import StoragePool
from tests.catalog import engine_for, everything


def _migrate(url: str, barrier: Any, outcomes: Any) -> None:
    config = StorageConfig(
        postgres=PostgresConfig.from_url(url, schema="shared"),
        pool=PoolConfig(max_connections=1),
    )
    with StoragePool(config) as pool:
        barrier.wait(timeout=60)
        pool.run_migrations()
        outcomes.put(migrate.current(pool.engine, pool.schema))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_ten_processes_at_once_migrate_once(empty_database_url: str, empty: sa.Engine) -> None:
    context = multiprocessing.get_context("fork")
    barrier, outcomes = context.Barrier(10), context.Queue()
    processes = [
        context.Process(target=_migrate, args=(empty_database_url, barrier, outcomes))
        for _ in range(10)
    ]
    for process in processes:
        process.start()
    try:
        assert [outcomes.get(timeout=60) for _ in processes] == [migrate.head()] * 10
    finally:
        for process in processes:
            process.join(timeout=10)
    assert [process.exitcode for process in processes] == [0] * 10
    with empty.connect() as connection:
        versions = connection.exec_driver_sql("SELECT version_num FROM shared.observatory_version")
        assert versions.scalars().all() == [migrate.head()]


def test_threads_at_once_migrate_once(empty_database_url: str) -> None:
    engine = engine_for(empty_database_url)
    errors: list[Exception] = []
    barrier = threading.Barrier(4)

    def work() -> None:
        barrier.wait(timeout=30)
        try:
            migrate.upgrade(engine)
        except Exception as error:  # noqa: BLE001 - shown by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert errors == []
    assert migrate.current(engine) == migrate.head()


def test_waiting_for_the_migration_lock_is_bounded(
    empty: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "_PATIENCE_SECONDS", 0.1)
    with empty.begin() as other:
        other.execute(
            sa.text("SELECT pg_advisory_xact_lock(:key)"),
            {"key": advisory_key("migrations", "public")},
        )
        with pytest.raises(MigrationError, match="'public': another process has been migrating"):
            migrate.upgrade(empty)
        migrate.upgrade(empty, "another")
    migrate.upgrade(empty)


def test_a_busy_table_is_tried_again(empty: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate.upgrade(empty)
    monkeypatch.setattr(migration_locks, "LOCK_TIMEOUT", "20ms")
    timeouts: list[str] = []
    busy = empty.connect()

    @sa.event.listens_for(empty, "handle_error")
    def free_after_the_second(context: sa.engine.ExceptionContext) -> None:
        timeouts.append(str(getattr(context.original_exception, "sqlstate", "")))
        if len(timeouts) == 2:
            busy.rollback()

    with busy:
        busy.exec_driver_sql("LOCK TABLE public.traces IN ACCESS SHARE MODE")
        migrate.downgrade(empty)
    assert timeouts == ["55P03", "55P03"]
    assert migrate.current(empty) is None


def test_a_table_that_stays_busy_is_an_error_and_changes_nothing(
    empty: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate.upgrade(empty)
    before = everything(empty)
    monkeypatch.setattr(migration_locks, "LOCK_TIMEOUT", "1ms")
    monkeypatch.setattr(migrate, "_LOCK_ATTEMPTS", 2)
    with empty.begin() as busy:
        busy.exec_driver_sql("LOCK TABLE public.traces IN ACCESS SHARE MODE")
        with pytest.raises(MigrationError, match=r"schema 'public': .*lock timeout") as caught:
            migrate.downgrade(empty)
    assert caught.value.retryable
    assert isinstance(caught.value.__cause__, sa.exc.OperationalError)
    assert everything(empty) == before
    assert migrate.current(empty) == migrate.head()
