"""`StructlogProcessor`, and structlog through `StorageHandler`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import structlog

from observatory_storage import LogRecord, StorageHandler, StoragePool, StructlogProcessor, observe
from tests.writers.helpers import fetch


@pytest.fixture
def processor(pool: StoragePool) -> Iterator[StructlogProcessor]:
    processor = StructlogProcessor(pool, service_name="shop")
    yield processor
    processor.close()


@pytest.fixture(autouse=True)
def _default_configuration() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def stored(pool: StoragePool, processor: StructlogProcessor) -> list[dict[str, Any]]:
    processor.flush()
    assert processor.lost == 0
    return fetch(pool, LogRecord, "timestamp", "id")


def configure(*processors: Any) -> structlog.testing.CapturingLogger:
    capturing = structlog.testing.CapturingLogger()
    structlog.configure(processors=[*processors], logger_factory=lambda *_: capturing)
    return capturing


def test_an_event_becomes_a_row_and_is_passed_on(
    pool: StoragePool, processor: StructlogProcessor
) -> None:
    capturing = configure(
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        processor,
        structlog.processors.EventRenamer("message"),
    )
    structlog.contextvars.bind_contextvars(request="r-1")
    with observe(pool, name="order") as step:
        structlog.get_logger().bind(user="ann").warning("paid", total=3)
    (row,) = stored(pool, processor)
    assert row["body"] == "paid"
    assert (row["severity_number"], row["severity_text"]) == (13, "WARNING")
    assert (row["trace_id"].hex, row["span_id"]) == (step.trace_id, step.span_id)
    told = {"request": "r-1", "user": "ann", "total": 3}
    assert told.items() <= row["attributes"].items()
    ((call, _, passed),) = capturing.calls
    assert call == "warning"
    assert datetime.fromisoformat(passed.pop("timestamp")) == row["timestamp"]
    assert passed == {**told, "level": "warning", "message": "paid"}


@pytest.mark.parametrize("fmt", [None, "iso", "%Y-%m-%d %H:%M:%S"])
def test_timestamps_are_read(
    pool: StoragePool, processor: StructlogProcessor, fmt: str | None
) -> None:
    configure(structlog.processors.TimeStamper(fmt=fmt, utc=True), processor)
    before = datetime.now(UTC).replace(microsecond=0)
    structlog.get_logger().info("paid")
    (row,) = stored(pool, processor)
    assert before <= row["timestamp"] <= datetime.now(UTC)
    assert "timestamp" not in row["attributes"]


def test_a_timestamp_of_another_form_stays_an_attribute(
    pool: StoragePool, processor: StructlogProcessor
) -> None:
    configure(structlog.processors.TimeStamper(fmt="%H o'clock", utc=True), processor)
    structlog.get_logger().info("paid")
    (row,) = stored(pool, processor)
    assert row["attributes"]["timestamp"].endswith("o'clock")


def test_call_sites_become_attributes(pool: StoragePool, processor: StructlogProcessor) -> None:
    parameter = structlog.processors.CallsiteParameter
    configure(
        structlog.processors.CallsiteParameterAdder(
            [parameter.PATHNAME, parameter.LINENO, parameter.FUNC_NAME, parameter.THREAD_NAME]
        ),
        processor,
    )
    structlog.get_logger().info("paid")
    (row,) = stored(pool, processor)
    attributes = row["attributes"]
    assert attributes["code.file.path"] == __file__
    assert attributes["code.function.name"] == "test_call_sites_become_attributes"
    assert attributes["code.line.number"] > 1
    assert not attributes.keys() & {"pathname", "lineno", "func_name"}


def fail() -> None:
    try:
        raise LookupError("no order")
    except LookupError:
        structlog.get_logger().exception("failed")


def test_exceptions_are_read(pool: StoragePool, processor: StructlogProcessor) -> None:
    configure(processor, structlog.processors.format_exc_info)
    fail()
    (row,) = stored(pool, processor)
    assert row["severity_number"] == 17
    assert row["attributes"]["exception.type"] == "LookupError"
    assert row["attributes"]["exception.message"] == "no order"
    assert row["attributes"]["exception.stacktrace"].endswith("LookupError: no order")


@pytest.mark.parametrize(
    ("formatter", "key"),
    [
        (structlog.processors.format_exc_info, "exception.stacktrace"),
        (structlog.processors.dict_tracebacks, "exception"),
    ],
)
def test_formatted_exceptions_are_kept(
    pool: StoragePool, processor: StructlogProcessor, formatter: Any, key: str
) -> None:
    configure(formatter, processor)
    fail()
    (row,) = stored(pool, processor)
    assert "no order" in str(row["attributes"][key])


def test_structlog_through_logging_is_stored_with_its_fields(
    pool: StoragePool,
    handler: StorageHandler,
    logger: logging.Logger,
) -> None:
    structlog.configure(
        processors=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    structlog.get_logger("shop.orders").warning("paid", total=3)
    handler.flush()
    (row,) = fetch(pool, LogRecord)
    assert (row["body"], row["body_json"]) == ("paid", None)
    assert row["attributes"]["total"] == 3
    assert row["scope_name"] == "shop.orders"
    assert not [key for key in row["attributes"] if key.startswith("_")]


def test_keys_that_are_no_names_lose_nothing(
    pool: StoragePool, processor: StructlogProcessor
) -> None:
    configure(processor)
    structlog.get_logger().info({"kind": "paid"}, **{"a b": 1}, values={1, 2})
    (row,) = stored(pool, processor)
    assert row["body_json"] == {"kind": "paid"}
    assert row["attributes"]["a b"] == 1
    assert row["attributes"]["values"] == [1, 2]
