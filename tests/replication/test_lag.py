"""The role of each server and the lag of the read server, wherever they are told."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from wsgiref.util import setup_testing_defaults

import prometheus_client
import pytest
import sqlalchemy as sa

from observatory_storage import (
    CopyWriter,
    NotFound,
    PoolConfig,
    PostgresConfig,
    StoragePool,
    StoreOperation,
    create_app,
)
from observatory_storage.hooks import PrometheusHook
from observatory_storage.hooks.store_state import StoreState
from observatory_storage.replication_lag import Lag, LagMeter
from observatory_storage.wal_positions import WalState
from tests.commands import runner
from tests.replication.pairs import Database, Pair, ask, execute
from tests.repositories.samples import a_log, trace_key
from tests.writers.helpers import fork, wait_for


def test_health_tells_roles_and_that_nothing_is_behind(pool: StoragePool, pair: Pair) -> None:
    CopyWriter(pool).write_logs([a_log(1)])
    pair.catch_up()
    for timeout in (None, 30.0):
        health = pool.health_check(timeout)
        assert (health.status, health.postgres.role) == ("healthy", "primary")
        assert (health.postgres.lag_bytes, health.postgres.lag_secs) == (None, None)
        assert health.read is not None
        assert (health.read.ok, health.read.role) == (True, "standby")
        # However long ago the last commit was.
        (age,) = ask(pair.standby.url, "SELECT now() - pg_last_xact_replay_timestamp() > '0'")
        assert age
        assert (health.read.lag_bytes, health.read.lag_secs) == (0, 0.0)


def test_health_tells_how_far_the_read_server_is_behind(pool: StoragePool, pair: Pair) -> None:
    assert pool.health_check().read is not None
    with pair.paused():
        began = time.monotonic()
        CopyWriter(pool).write_logs([a_log(number) for number in range(1, 100)])
        read = pool.health_check().read
        assert read is not None
        assert read.lag_bytes is not None
        assert read.lag_secs is not None
        assert read.lag_bytes > 99 * 50
        first = read.lag_secs
        assert first > 0
        read = pool.health_check().read
        assert read is not None
        assert read.lag_secs is not None
        assert first < read.lag_secs < first + time.monotonic() - began + 1
    pair.catch_up()
    read = pool.health_check().read
    assert read is not None
    assert (read.lag_bytes, read.lag_secs) == (0, 0.0)


def test_a_read_server_that_is_a_primary_has_no_lag(database: Database) -> None:
    both = PostgresConfig.from_url(database.url, read_url=database.url)
    with database.pool(postgres=both) as pool:
        read = pool.health_check().read
    assert read is not None
    assert (read.role, read.lag_bytes, read.lag_secs) == ("primary", 0, 0.0)


def test_a_read_server_that_is_away_degrades_the_store(database: Database) -> None:
    nobody = PostgresConfig.from_url(database.url, read_url="postgresql://127.0.0.1:9/")
    with database.pool(postgres=nobody) as pool:
        health = pool.health_check(30)
        assert (health.status, health.postgres.ok) == ("degraded", True)
        assert health.read is not None
        assert not health.read.ok
        assert (health.read.role, health.read.lag_bytes) == (None, None)
        CopyWriter(pool).write_logs([a_log(1)])


def test_without_the_primary_the_lag_is_not_known(database: Database) -> None:
    nobody = PostgresConfig.from_url("postgresql://127.0.0.1:9/nothing", read_url=database.read_url)
    with database.pool(postgres=nobody) as pool:
        health = pool.health_check(30)
        assert health.status == "unhealthy"
        assert health.read is not None
        assert (health.read.ok, health.read.role) == (True, "standby")
        assert (health.read.lag_bytes, health.read.lag_secs) == (None, None)


def test_the_health_application_tells_of_the_read_server(pool: StoragePool) -> None:
    environ: dict[str, object] = {"PATH_INFO": "/health", "REQUEST_METHOD": "GET"}
    setup_testing_defaults(environ)
    body = b"".join(create_app(pool, details=True)(environ, lambda *_: lambda _: None))
    report = json.loads(body)
    assert report["read"]["role"] == "standby"
    assert report["postgres"]["role"] == "primary"
    assert report["read"]["lag_bytes"] >= 0


def test_prometheus_is_told_the_lag(pool: StoragePool, pair: Pair) -> None:
    registry = prometheus_client.CollectorRegistry()
    pool.add_hook(PrometheusHook(registry))
    with pair.paused():
        CopyWriter(pool).write_logs([a_log(1)])
        for name in ("bytes", "seconds"):
            lag = registry.get_sample_value(
                f"storage_replication_lag_{name}", {"schema": pool.schema}
            )
            assert lag is not None
            assert lag > 0


def test_check_tells_of_the_replica(
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    pair: Pair,
) -> None:
    run = runner(monkeypatch, capfd, tmp_path)
    pair.catch_up()
    given = {"DATABASE_URL": database.url, "DATABASE_READ_URL": database.read_url}
    result = run("check", **given)
    assert result.code == 0, result.out
    (line,) = [line for line in result.out.splitlines() if "replica" in line]
    assert "a standby, answered in" in line
    assert line.endswith("0 bytes and 0.000 s behind")
    # Another cluster, whose answers would be wrong.
    given = {"DATABASE_URL": database.url, "DATABASE_READ_URL": pair.standby.url}
    result = run("check", **given)
    assert result.code == 1
    assert "it is no replica of the primary" in result.out
    execute(database.url, "CREATE ROLE nobody")
    execute(database.url, "DROP ROLE nobody")


def test_check_does_not_say_of_servers_that_it_cannot_compare_that_they_differ(
    refusing: Database,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    run = runner(monkeypatch, capfd, tmp_path)
    for given in ((database.url, refusing.read_url), (refusing.url, database.read_url)):
        result = run(
            "check", **dict(zip(("DATABASE_URL", "DATABASE_READ_URL"), given, strict=True))
        )
        (line,) = [line for line in result.out.splitlines() if "replica" in line]
        assert "not verified to be a replica" in line
        assert line.endswith("its lag is not known")


def test_a_server_that_refuses_positions_is_healthy(refusing: Database) -> None:
    """As Aurora and other managed servers do."""
    with refusing.pool(postgres=PostgresConfig.from_url(refusing.url)) as pool:
        for timeout in (None, 30.0):
            health = pool.health_check(timeout)
            assert (health.status, health.postgres.role) == ("healthy", "primary")
    with refusing.pool() as pool:
        health = pool.health_check(30.0)
        assert (health.status, health.postgres.role) == ("healthy", "primary")
        assert health.read is not None
        assert (health.read.ok, health.read.role) == (True, "standby")
        assert (health.read.lag_bytes, health.read.lag_secs) == (None, None)


def test_nobody_asks_for_positions_without_a_read_server(database: Database) -> None:
    statements: list[str] = []
    with database.pool(postgres=PostgresConfig.from_url(database.url)) as pool:
        sa.event.listen(
            pool.engine, "before_cursor_execute", lambda *given: statements.append(given[2])
        )
        assert pool.health_check().status == "healthy"
        with pool.unit_of_work(read_only=True) as uow, pytest.raises(NotFound):
            uow.traces.get(trace_key(1))
    assert statements
    assert [one for one in statements if "lsn" in one] == []


def test_a_read_server_that_connects_slowly_is_asked_while_the_primary_is_silent(
    database: Database,
) -> None:
    one = PoolConfig(max_connections=1, min_connections=0)
    with database.pool(pool=one) as pool:
        with pool.engine.connect() as connection:
            backend = int(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())

        @sa.event.listens_for(pool.read_engine.pool, "connect")
        def be_slow(*_: object) -> None:
            time.sleep(0.6)

        os.kill(backend, signal.SIGSTOP)
        try:
            health = pool.health_check(2.0)
        finally:
            os.kill(backend, signal.SIGCONT)
        assert health.postgres.error == "no answer within 2 s"
        assert health.read is not None
        assert (health.read.ok, health.read.role) == (True, "standby")


def test_reading_the_lag_is_reported_to_no_hook(pool: StoragePool) -> None:
    told: list[StoreOperation] = []
    pool.add_hook(told.append)
    assert StoreState.of(pool, 30.0).lag.bytes is not None
    assert told == []
    pool.health_check(30.0)
    assert {one.operation for one in told} == {"acquire"}


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_a_lock_of_its_parent() -> None:
    meter = LagMeter()
    with meter._seen.get().lock:
        wait_for(fork(lambda: meter.measure(a_primary("1/20"), a_standby("1/10", 5.0))))


def a_standby(lsn: str, age_secs: float | None) -> WalState:
    return WalState("18", is_standby=True, lsn=lsn, received=lsn, age_secs=age_secs)


def a_primary(lsn: str) -> WalState:
    return WalState("18", is_standby=False, lsn=lsn, received=None, age_secs=None)


def test_an_idle_primary_lets_no_lag_grow() -> None:
    meter = LagMeter()
    for age in (1.0, 3600.0, 86400.0):
        assert meter.measure(a_primary("1/10"), a_standby("1/10", age)) == Lag(0, 0.0)


def test_the_first_bytes_after_a_pause_are_not_hours_behind() -> None:
    meter = LagMeter()
    assert meter.measure(a_primary("1/10"), a_standby("1/10", 7200.0)) == Lag(0, 0.0)
    lag = meter.measure(a_primary("1/20"), a_standby("1/10", 7200.0))
    assert lag.bytes == 16
    assert lag.secs is not None
    assert lag.secs < 3600
    # Nothing was measured before: what the standby says is all that is known.
    assert LagMeter().measure(a_primary("1/20"), a_standby("1/10", 7200.0)) == Lag(16, 7200.0)
    assert LagMeter().measure(a_primary("1/20"), a_standby("1/10", None)) == Lag(16, None)


def test_clocks_that_differ_make_no_negative_lag() -> None:
    assert LagMeter().measure(a_primary("1/20"), a_standby("1/10", -3.0)) == Lag(16, 0.0)


def test_the_lag_is_counted_over_the_boundary_of_a_file() -> None:
    lag = LagMeter().measure(a_primary("2/1"), a_standby("1/FFFFFFFF", 1.0))
    assert lag.bytes == 2


def test_a_standby_that_never_catches_up_keeps_its_last_bound() -> None:
    meter = LagMeter()
    meter.measure(a_primary("1/10"), a_standby("1/10", 9000.0))
    for number in range(2000):
        lag = meter.measure(a_primary(f"1/{32 + number:X}"), a_standby("1/10", 9000.0))
        assert lag.secs is not None
        assert lag.secs < 3600
