"""Errors of the server and its driver are translated by SQLSTATE, also those without one."""

from __future__ import annotations

import pickle
import select
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.pool import NullPool, QueuePool

from observatory_storage import (
    Conflict,
    ConnectionLost,
    NotFound,
    PoolError,
    ReadOnly,
    StorageError,
    Timeout,
    ValidationError,
)
from observatory_storage.errors import sqlstate_of, translate, translated

METRIC = (
    "INSERT INTO metrics (id, name, metric_type, service_name)"
    " VALUES ('00000000-0000-0000-0000-00000000000{}', 'm', '{}', 's')"
)
DEADLINE = 10  # seconds until a test gives up on the server


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    engine = _engine(database_url)
    yield engine
    engine.dispose()


def _engine(url: str, **options: Any) -> sa.Engine:
    options = {"poolclass": NullPool} | options
    return sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"), **options)


def raised(action: Callable[[], object]) -> StorageError:
    """The translated error that the action raises."""
    with pytest.raises(StorageError) as caught, translated():
        action()
    cause = caught.value.__cause__
    assert isinstance(cause, (sa.exc.SQLAlchemyError, psycopg.Error))
    return caught.value


BY_STATEMENT: list[tuple[list[str], str, type[StorageError], bool]] = [
    ([METRIC.format(1, "gauge")] * 2, "23505", Conflict, False),
    ([METRIC.format(1, "sum")], "23514", ValidationError, False),
    (["INSERT INTO metrics (id) VALUES (md5('a')::uuid)"], "23502", ValidationError, False),
    (
        [
            "INSERT INTO logs (id, timestamp, service_name)"
            " VALUES (md5('a')::uuid, '1800-01-01', 's')"
        ],
        "23514",
        ValidationError,
        False,
    ),
    (["SELECT convert_from('\\xff'::bytea, 'UTF8')"], "22021", ValidationError, False),
    (["""SELECT '"\\u0000"'::jsonb"""], "22P05", ValidationError, False),
    (["SELECT '{'::jsonb"], "22P02", ValidationError, False),
    (["SELECT 1e400::float8"], "22003", ValidationError, False),
    (["SELECT '10000-13-01'::timestamptz"], "22008", ValidationError, False),
    (["SELECT 1 / 0"], "22012", ValidationError, False),
    (["SELECT * FROM nowhere"], "42P01", StorageError, False),
    (["SELECT nothing FROM metrics"], "42703", StorageError, False),
    (["SELEC 1"], "42601", StorageError, False),
    (["SET LOCAL statement_timeout = 20", "SELECT pg_sleep(30)"], "57014", Timeout, False),
    (["SET TRANSACTION READ ONLY", METRIC.format(1, "gauge")], "25006", ReadOnly, False),
    (["SELECT pg_terminate_backend(pg_backend_pid())"], "57P01", ConnectionLost, True),
]


@pytest.mark.parametrize(
    ("statements", "state", "kind", "retryable"), BY_STATEMENT, ids=lambda value: str(value)[:40]
)
def test_errors_of_the_server_are_translated(
    engine: sa.Engine,
    statements: list[str],
    state: str,
    kind: type[StorageError],
    retryable: bool,
) -> None:
    def run() -> None:
        with engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    check(raised(run), state, kind, retryable)
    # The error of the driver alone is translated in the same way.
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        check(
            raised(lambda: [driver.execute(one.encode()) for one in statements]),
            state,
            kind,
            retryable,
        )


def check(
    error: StorageError, state: str | None, kind: type[StorageError], retryable: bool
) -> None:
    assert type(error) is kind
    assert error.retryable is retryable
    assert error.__cause__ is not None
    assert sqlstate_of(error.__cause__) == state
    message = str(error)
    assert message
    assert "\n" not in message
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.retryable) == (kind, message, retryable)


def test_a_refused_value_names_its_column(engine: sa.Engine) -> None:
    def run(statement: str) -> Callable[[], object]:
        def action() -> None:
            with engine.begin() as connection:
                connection.exec_driver_sql(statement)

        return action

    error = raised(run("INSERT INTO metrics (id) VALUES (md5('a')::uuid)"))
    assert isinstance(error, ValidationError)
    assert error.field == "name"
    assert pickle.loads(pickle.dumps(error)).field == "name"
    error = raised(run(METRIC.format(1, "sum")))
    assert isinstance(error, ValidationError)
    assert error.field == "ck_metrics_metric_type"


def test_text_that_the_driver_refuses_is_a_validation_error(engine: sa.Engine) -> None:
    def run() -> None:
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT CAST(:value AS text)"), {"value": "a\x00b"})

    check(raised(run), None, ValidationError, False)


def test_lock_timeout_is_a_retryable_conflict(engine: sa.Engine) -> None:
    with engine.begin() as holder:
        holder.exec_driver_sql("LOCK TABLE metrics")

        def run(*statements: str) -> Callable[[], object]:
            def action() -> None:
                with engine.begin() as connection:
                    for statement in statements:
                        connection.exec_driver_sql(statement)

            return action

        wait = run("SET LOCAL lock_timeout = 20", "LOCK TABLE metrics")
        for action in (wait, run("LOCK TABLE metrics NOWAIT")):
            check(raised(action), "55P03", Conflict, True)


def test_deadlock_is_a_retryable_conflict(engine: sa.Engine) -> None:
    found: list[StorageError] = []
    both_hold_one = threading.Barrier(2, timeout=DEADLINE)

    def take(*keys: int) -> None:
        try:
            with translated(), engine.begin() as connection:
                for at, key in enumerate(keys):
                    if at:
                        both_hold_one.wait()
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({key})")
        except StorageError as error:
            found.append(error)

    threads = [threading.Thread(target=take, args=keys) for keys in ((1, 2), (2, 1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert len(found) == 1
    check(found[0], "40P01", Conflict, True)


def test_serialization_failure_is_a_retryable_conflict(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(METRIC.format(1, "gauge"))

    def run() -> None:
        repeatable = engine.execution_options(isolation_level="REPEATABLE READ")
        with repeatable.begin() as late:
            late.exec_driver_sql("SELECT * FROM metrics")
            with engine.begin() as early:
                early.exec_driver_sql("UPDATE metrics SET unit = 'ms'")
            late.exec_driver_sql("UPDATE metrics SET unit = 's'")

    check(raised(run), "40001", Conflict, True)


@pytest.mark.parametrize(
    ("setting", "state"),
    [("idle_in_transaction_session_timeout", "25P03"), ("idle_session_timeout", "57P05")],
)
def test_idle_session_timeout_is_a_lost_connection(
    engine: sa.Engine, setting: str, state: str
) -> None:
    noticed: list[str | None] = []
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        driver.add_notice_handler(lambda notice: noticed.append(notice.sqlstate))
        connection.exec_driver_sql(f"SET {setting} = 1")
        if setting == "idle_session_timeout":
            driver.commit()
        # A query that is sent before the server has closed can hide its last words; over TCP, also
        # one that is sent afterwards.
        closed = select.poll()
        closed.register(driver.pgconn.socket, getattr(select, "POLLRDHUP", select.POLLHUP))
        assert closed.poll(DEADLINE * 1000)
        error = raised(lambda: connection.exec_driver_sql("SELECT 1"))
        assert error.__cause__ is not None
        lost = not driver.info.host.startswith("/") and sqlstate_of(error.__cause__) is None
        # A late client reads the last words behind an answer; libpq takes them for a notice.
        check(error, None if lost or state in noticed else state, ConnectionLost, True)


def test_terminated_session_is_a_lost_connection(engine: sa.Engine) -> None:
    with engine.connect() as connection, engine.begin() as other:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        process = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        other.exec_driver_sql(f"SELECT pg_terminate_backend({process}, {DEADLINE * 1000})")
        error = raised(lambda: connection.exec_driver_sql("SELECT 1"))
        assert isinstance(error, ConnectionLost)
        assert error.retryable
        # The connection is closed now. Its errors have no SQLSTATE.
        check(raised(lambda: driver.execute("SELECT 1")), None, ConnectionLost, True)


def test_unreachable_server_is_a_lost_connection() -> None:
    # A port that is bound, but on which nothing listens.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        url = f"postgresql://nobody@127.0.0.1:{port}/nothing"
        check(raised(lambda: _engine(url).connect()), None, ConnectionLost, True)
        check(raised(lambda: psycopg.connect(url)), None, ConnectionLost, True)


def test_exhausted_pool_is_a_pool_error(database_url: str) -> None:
    engine = _engine(
        database_url, poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=0.01
    )
    with engine.connect():
        error = raised(engine.connect)
    check(error, None, PoolError, True)
    assert "Background on" not in str(error)
    engine.dispose()


# States that the tests above do not cause, and similar ones that mean something else.
BY_STATE: list[tuple[str, type[StorageError], bool]] = [
    ("08006", ConnectionLost, True),
    ("08P01", ConnectionLost, True),
    ("57P02", ConnectionLost, True),
    ("57P03", ConnectionLost, True),
    ("53300", PoolError, True),
    ("40002", Conflict, True),
    ("40003", Conflict, True),
    ("23P01", Conflict, False),
    ("23503", ValidationError, False),
    ("25P04", Timeout, False),
    ("25P02", StorageError, False),
    ("28P01", StorageError, False),
    ("3D000", StorageError, False),
    ("42501", StorageError, False),
    ("53100", StorageError, False),
    ("54000", StorageError, False),
    ("55000", StorageError, False),
    ("57P04", StorageError, False),
    ("XX000", StorageError, False),
]


@pytest.mark.parametrize(("state", "kind", "retryable"), BY_STATE)
def test_other_sqlstates_are_translated(
    state: str, kind: type[StorageError], retryable: bool
) -> None:
    driver_error = psycopg.errors.lookup(state)("Nachricht in der Sprache des Servers")
    for error in (driver_error, sa.exc.DBAPIError("SELECT 1", {}, driver_error)):
        found = translate(error)
        assert type(found) is kind
        assert found.retryable is retryable


def test_errors_of_other_code_are_not_translated() -> None:
    assert translate(KeyError("x")) is None
    for error in (KeyError("x"), NotFound("no such trace")):
        with pytest.raises(type(error)) as caught, translated():
            raise error
        assert caught.value is error
        assert caught.value.__cause__ is None
    known = NotFound("no such trace")
    assert translate(known) is known
