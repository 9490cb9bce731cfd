"""Log records on their way: threads, a database that is away, and what is lost."""

from __future__ import annotations

import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from observatory_embedded import EmbeddedPostgres
from observatory_storage import LoggingHook, LogRecord, StorageHandler, StoragePool
from observatory_storage.recording import log_sink
from tests.writers.helpers import count, eventually, fetch, locked, quick_pool

WithHandler = Callable[[logging.Handler], logging.Logger]


def test_records_of_many_threads_are_all_stored(
    pool: StoragePool, handler: StorageHandler, logger: logging.Logger
) -> None:
    def work(number: int) -> None:
        for line in range(200):
            logger.info("%d", 1000 * number + line)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handler.flush()
    bodies = sorted(int(row["body"]) for row in fetch(pool, LogRecord))
    assert bodies == sorted(1000 * number + line for number in range(8) for line in range(200))


def test_records_are_stored_in_the_background(pool: StoragePool, logger_with: WithHandler) -> None:
    logger_with(StorageHandler(pool, flush_interval_secs=0.01)).info("paid")
    eventually(lambda: count(pool, "logs") == 1)


def test_logging_does_not_wait_for_the_database(
    pool: StoragePool, database_url: str, logger_with: WithHandler, capsys: Any
) -> None:
    handler = StorageHandler(pool, batch_size=10, max_buffered=25, flush_timeout_secs=0.01)
    logger = logger_with(handler)
    logger.info("first")
    pool.partitions.ensure("logs", [datetime.now(UTC)])
    with locked(database_url, "logs"):
        for number in range(40):
            logger.info("%d", number)
        assert handler.lost == 16
        handler.flush()  # returns although nothing can be written
    eventually(lambda: count(pool, "logs") == 25)
    report = capsys.readouterr().err
    assert report.count("\n") == 2
    assert "25 log records could not be stored yet: 25 rows were not committed" in report
    assert "1 log record could not be stored: StorageError: the buffer is full" in report
    logger.info("last")
    eventually(lambda: count(pool, "logs") == 26)


def test_closing_does_not_wait_longer_than_allowed(
    pool: StoragePool, database_url: str, logger_with: WithHandler
) -> None:
    handler = StorageHandler(pool, flush_timeout_secs=0.01)
    logger_with(handler).info("paid")
    pool.partitions.ensure("logs", [datetime.now(UTC)])
    with locked(database_url, "logs"):
        handler.close()
    eventually(lambda: count(pool, "logs") == 1)  # written by its thread
    handler.close()
    assert handler.lost == 0


def test_reports_are_silent_if_logging_is_told_to_be(
    pool: StoragePool,
    logger_with: WithHandler,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)
    handler = StorageHandler(pool)
    handler.close()
    logger_with(handler).info("late")
    handler.handle(logging.makeLogRecord({"msg": "later"}))
    assert handler.lost == 2
    assert capsys.readouterr().err == ""


def test_records_come_later_when_the_database_was_away(
    embedded_server: EmbeddedPostgres, logger_with: WithHandler
) -> None:
    with quick_pool(embedded_server.url) as pool:
        pool.run_migrations()
        handler = StorageHandler(pool, flush_interval_secs=0.01)
        logger = logger_with(handler)
        embedded_server.stop()
        for number in range(10):
            logger.info("%d", number)
        handler.flush()
        embedded_server.start()
        handler.flush()
        assert count(pool, "logs") == 10
        assert handler.lost == 0


def test_settings_that_are_wrong_are_reported_once(
    logger_with: WithHandler, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from observatory_storage import shared_pool

    monkeypatch.setenv("DATABASE_URL", "nonsense")
    monkeypatch.setattr(shared_pool, "_shared", [])
    handler = StorageHandler()
    logger = logger_with(handler)
    for _ in range(3):
        logger.info("paid")
    assert handler.lost == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("observatory_storage: 1 log record could not be stored: ConfigError: ")


def test_the_pool_of_a_function_may_change(
    pool: StoragePool, database_url: str, logger_with: WithHandler
) -> None:
    """As where a project's tests replace the database."""
    with quick_pool(database_url) as other:
        pools = [pool]
        handler = StorageHandler(lambda: pools[0], service_name="shop")
        logger = logger_with(handler)
        logger.info("of the first")
        pools[0] = other
        logger.info("of the second")
        pool.close()
        assert [row["body"] for row in fetch(other, LogRecord)] == ["of the first"]
        logger.info("of the second too")
        handler.flush()
        assert count(other, "logs") == 3
        pools[0] = pool
        logger.info("too late")
        assert handler.lost == 1


def test_a_function_that_returns_no_pool_is_reported(
    logger_with: WithHandler, capsys: pytest.CaptureFixture[str]
) -> None:
    no_pool: Any = "postgresql://shop:secret@db/shop"
    handler = StorageHandler(lambda: no_pool)
    logger_with(handler).info("paid")
    assert handler.lost == 1
    report = capsys.readouterr().err
    assert "the function must return a StoragePool" in report
    assert "secret" not in report


def test_storing_records_makes_no_records(pool: StoragePool) -> None:
    """Otherwise each flush would make the work of the next one."""
    root = logging.getLogger()
    handler = StorageHandler(pool, batch_size=5, flush_interval_secs=0.01)
    pool.add_hook(LoggingHook())
    level = root.level
    engine_level = logging.getLogger("sqlalchemy.engine").level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    logging.getLogger("sqlalchemy.engine").setLevel(logging.DEBUG)
    flushed: list[logging.LogRecord] = []

    class Seen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.threadName == "observatory-flush":
                flushed.append(record)

    seen = Seen()
    root.addHandler(seen)
    try:
        for number in range(20):
            logging.getLogger("shop").info("%d", number)
        handler.flush()
        eventually(lambda: any("flush" in record.getMessage() for record in flushed))
        handler.flush()
        names = {row["scope_name"] for row in fetch(pool, LogRecord)}
        assert names == {"shop"}
    finally:
        root.removeHandler(handler)
        root.removeHandler(seen)
        root.setLevel(level)
        logging.getLogger("sqlalchemy.engine").setLevel(engine_level)
        handler.close()


def test_rows_that_the_database_refuses_are_counted(
    pool: StoragePool, handler: StorageHandler, logger: logging.Logger
) -> None:
    with pool.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE logs ADD CHECK (body <> 'bad')")
    logger.info("bad")
    logger.info("good")
    handler.flush()
    assert handler.lost == 1
    assert [row["body"] for row in fetch(pool, LogRecord)] == ["good"]


def test_closing_the_pool_flushes(database_url: str, logger_with: WithHandler) -> None:
    with quick_pool(database_url) as pool:
        handler = StorageHandler(pool, flush_interval_secs=60)
        logger_with(handler).info("paid")
    with quick_pool(database_url) as pool:
        assert count(pool, "logs") == 1


def test_reports_come_at_most_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    from observatory_storage.recording import loss_report

    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    told: list[str] = []
    report = loss_report.LossReport("span", told.append)
    for at in (1000.0, 1001.0, 1059.0, 1061.0):
        now[0] = at
        report.add(ValueError("no"))
    assert told == [
        "1 span could not be stored: ValueError: no",
        "3 spans could not be stored: ValueError: no",
    ]
    assert report.lost == 4
    assert log_sink.is_of_storage("shop", "observatory-flush")


def test_records_that_redact_logs_are_counted_as_lost(
    pool: StoragePool, logger_with: WithHandler
) -> None:
    def redact(row: dict[str, Any]) -> dict[str, Any]:
        logging.getLogger("shop.orders").info("redacting")
        return row

    handler = StorageHandler(pool, redact=redact)
    logger_with(handler).info("paid")
    handler.flush()
    assert handler.lost == 1
    assert [row["body"] for row in fetch(pool, LogRecord)] == ["paid"]


def test_the_pool_does_not_keep_handlers_that_are_closed(pool: StoragePool) -> None:
    handler = StorageHandler(pool)
    handler.handle(logging.makeLogRecord({"msg": "paid"}))
    handler.close()
    former = weakref.ref(handler._sink)
    del handler
    gc.collect()
    assert former() is None


def test_losses_of_several_threads_are_all_counted() -> None:
    from observatory_storage.recording import loss_report

    report = loss_report.LossReport("span", lambda _: None)
    other = threading.Thread(target=report.add, args=("no",))

    class Interrupted(int):
        """A number that another thread begins to add to while it is added."""

        def __radd__(self, lost: int) -> int:
            other.start()
            other.join(0.05)  # which would not have to wait without a lock
            return lost + int(self)

    report.add("no", Interrupted(2))
    other.join()
    assert report.lost == 3
