"""`StorageHandler`: what of a record is stored."""

from __future__ import annotations

import json
import logging
import logging.config
import logging.handlers
import queue
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from observatory_storage import (
    LogRecord,
    SpanIdsFilter,
    StorageHandler,
    StoragePool,
    ValidationError,
    observe,
)
from tests.writers.helpers import fetch

WithHandler = Callable[[logging.Handler], logging.Logger]


def stored(pool: StoragePool, handler: StorageHandler) -> list[dict[str, Any]]:
    handler.flush()
    assert handler.lost == 0
    return fetch(pool, LogRecord, "timestamp", "id")


def test_a_record_becomes_a_row(
    pool: StoragePool, handler: StorageHandler, logger: logging.Logger
) -> None:
    before = datetime.now(UTC)
    logger.warning("order %s of %d items", "A-1", 3)
    after = datetime.now(UTC)
    (row,) = stored(pool, handler)
    assert before.replace(microsecond=0) <= row["timestamp"] <= after
    assert (row["severity_number"], row["severity_text"]) == (13, "WARNING")
    assert row["body"] == "order A-1 of 3 items"
    assert (row["service_name"], row["scope_name"]) == ("shop", "shop.orders")
    assert row["trace_id"] is row["span_id"] is row["trace_flags"] is None
    attributes = row["attributes"]
    assert Path(attributes.pop("code.file.path")) == Path(__file__)
    assert attributes.pop("code.line.number") > 1
    assert attributes == {
        "code.function.name": "test_a_record_becomes_a_row",
        "thread.id": threading.get_ident(),
        "thread.name": threading.current_thread().name,
        "message_template.text": "order %s of %d items",
        "message_template.args": ["A-1", 3],
    }
    assert row["resource_attributes"].keys() == {"service.name", "process.pid"}


@pytest.mark.parametrize(
    ("level", "severity"),
    [
        (5, 1),
        (logging.DEBUG, 5),
        (15, 8),
        (logging.INFO, 9),
        (21, 10),
        (22, 11),
        (25, 12),
        (logging.WARNING, 13),
        (logging.ERROR, 17),
        (logging.CRITICAL, 21),
        (99, 24),
    ],
)
def test_levels_become_severities(
    pool: StoragePool, handler: StorageHandler, logger: logging.Logger, level: int, severity: int
) -> None:
    logger.log(level, "something")
    (row,) = stored(pool, handler)
    assert row["severity_number"] == severity
    assert row["severity_text"] == logging.getLevelName(level)


def test_extra_fields_become_attributes(
    pool: StoragePool, handler: StorageHandler, logger: logging.Logger
) -> None:
    class Order:
        def __repr__(self) -> str:
            return "<order A-1>"

    fields = {
        "total": Decimal("9.50"),
        "items": {"pens": 3},
        "paid": datetime(2026, 3, 1, tzinfo=UTC),
        "order": Order(),
    }
    logger.info("paid", extra=fields)
    (row,) = stored(pool, handler)
    kept = {key: value for key, value in row["attributes"].items() if key in fields}
    assert kept == {
        "total": 9.5,
        "items": {"pens": 3},
        "paid": "2026-03-01T00:00:00+00:00",
        "order": "<order A-1>",
    }


@pytest.mark.parametrize(("extra", "kept"), [(["total"], {"total"}), (False, set())])
def test_extra_fields_can_be_chosen(
    pool: StoragePool, logger_with: WithHandler, extra: Any, kept: set[str]
) -> None:
    handler = StorageHandler(pool, extra=extra)
    logger_with(handler).info("paid", extra={"total": 3, "card": "4711"})
    (row,) = stored(pool, handler)
    assert row["attributes"].keys() & {"total", "card"} == kept


def test_exceptions_are_stored_with_their_traces(
    pool: StoragePool, handler: StorageHandler, logger: logging.Logger
) -> None:
    try:
        raise queue.Empty("no order")
    except queue.Empty:
        logger.exception("failed")
    logger.error("here", stack_info=True)
    failed, here = stored(pool, handler)
    assert failed["attributes"]["exception.type"] == "_queue.Empty"
    assert failed["attributes"]["exception.message"] == "no order"
    trace = failed["attributes"]["exception.stacktrace"]
    assert trace.startswith("Traceback (most recent call last):\n")
    assert trace.endswith("Empty: no order")
    assert "test_exceptions_are_stored" in here["attributes"]["code.stacktrace"]


def test_an_exception_without_a_text_of_its_own_does_not_disturb(
    pool: StoragePool, handler: StorageHandler, logger: logging.Logger
) -> None:
    class SilentError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("not even this")

    logger.error("failed", exc_info=SilentError())
    (row,) = stored(pool, handler)
    assert row["attributes"]["exception.message"] == "SilentError"


def test_a_mistake_in_a_message_loses_no_record(pool: StoragePool, handler: StorageHandler) -> None:
    # Not through a logger, where pytest's own handler would raise.
    handler.handle(logging.makeLogRecord({"msg": "order %d", "args": ("A-1",)}))
    (row,) = stored(pool, handler)
    assert row["body"] == "order %d"
    assert row["attributes"]["message_template.args"] == ["A-1"]
    assert row["attributes"]["message_template.error"].startswith("TypeError: %d format")


def test_a_mapping_as_message_is_a_structured_body(
    pool: StoragePool, handler: StorageHandler, logger: logging.Logger
) -> None:
    logger.info({"event": "paid", "total": 3})
    logger.info(Path("/tmp"))
    first, second = stored(pool, handler)
    assert (first["body"], first["body_json"]) == (None, {"event": "paid", "total": 3})
    assert second["body"] == "/tmp"


def test_a_formatter_decides_the_body(pool: StoragePool, logger_with: WithHandler) -> None:
    handler = StorageHandler(pool)
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logger_with(handler).info("paid %d", 3)
    (row,) = stored(pool, handler)
    assert row["body"] == "INFO: paid 3"


def test_the_active_span_is_stored(
    pool: StoragePool, handler: StorageHandler, logger: logging.Logger
) -> None:
    with observe(pool, name="order") as step:
        logger.info("within")
    logger.info("after")
    within, after = stored(pool, handler)
    assert (within["trace_id"].hex, within["span_id"]) == (step.trace_id, step.span_id)
    assert within["trace_flags"] == 1
    assert after["trace_id"] is None


def test_ids_among_the_extra_fields_are_the_span(
    pool: StoragePool, handler: StorageHandler, logger: logging.Logger
) -> None:
    ids = {"trace_id": "0AF7651916CD43DD8448EB211C80319C", "span_id": "b7ad6b7169203331"}
    logger.info("one", extra=ids)
    logger.info("two", extra={"trace_id": "order 3"})
    logger.info("three", extra={"otelTraceID": ids["trace_id"].lower(), "otelSpanID": "0" * 16})
    one, two, three = stored(pool, handler)
    assert one["trace_id"].hex == ids["trace_id"].lower()
    assert one["span_id"] == ids["span_id"]
    assert not one["attributes"].keys() & ids.keys()
    assert (two["trace_id"], two["attributes"]["trace_id"]) == (None, "order 3")
    assert three["trace_id"] == one["trace_id"]
    assert three["span_id"] is None


def test_a_queue_keeps_the_span(pool: StoragePool, logger_with: WithHandler) -> None:
    handler = StorageHandler(pool)
    records: queue.SimpleQueue[Any] = queue.SimpleQueue()
    through = logging.handlers.QueueHandler(records)
    through.addFilter(SpanIdsFilter())
    logger = logger_with(through)
    listener = logging.handlers.QueueListener(records, handler)
    listener.start()
    with observe(pool, name="order") as step:
        logger.info("paid %d", 3, extra={"card": "4711"})
    listener.stop()
    (row,) = stored(pool, handler)
    handler.close()
    assert (row["trace_id"].hex, row["span_id"]) == (step.trace_id, step.span_id)
    assert row["body"] == "paid 3"
    assert row["attributes"]["card"] == "4711"
    assert not [key for key in row["attributes"] if key.startswith("otel")]
    assert row["attributes"]["thread.name"] == threading.current_thread().name


CONFIG = """
{
  "version": 1,
  "disable_existing_loggers": false,
  "handlers": {
    "storage": {
      "class": "observatory_storage.StorageHandler",
      "service_name": "shop",
      "level": "INFO",
      "extra": ["order"],
      "resource_attributes": {"deployment.environment.name": "test"},
      "batch_size": 100,
      "flush_interval_secs": 0.5,
      "max_buffered": 1000,
      "flush_timeout_secs": 20
    }
  },
  "loggers": {"shop.orders": {"level": "DEBUG", "handlers": ["storage"]}}
}
"""


def test_a_configuration_in_json_creates_the_handler(
    pool: StoragePool,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    logger_with: WithHandler,
) -> None:
    from observatory_storage import shared_pool

    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setattr(shared_pool, "_shared", [])
    logging.config.dictConfig(json.loads(CONFIG))
    logger = logging.getLogger("shop.orders")
    (handler,) = logger.handlers
    assert isinstance(handler, StorageHandler)
    logger.debug("not stored")
    logger.info("paid", extra={"order": 3})
    (row,) = stored(pool, handler)
    assert row["attributes"]["order"] == 3
    assert row["resource_attributes"]["deployment.environment.name"] == "test"
    shared_pool.shared_pool().close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": "postgresql://user:secret@host/db"}, r"^pool=<class 'str'>: must be"),
        ({"service_name": ""}, "^service_name=''"),
        ({"extra": "order"}, "^extra='order': must be true, false, or a list of names"),
        ({"batch_size": 0}, "^batch_size=0"),
        ({"flush_timeout_secs": 0}, "^flush_timeout_secs=0: must be above 0"),
        ({"resource_attributes": ["a"]}, r"^resource_attributes=\['a'\]: must be a mapping"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        StorageHandler(**options)
