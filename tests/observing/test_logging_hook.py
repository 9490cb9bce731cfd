"""The logging hook: which operations are logged, at which level, with which fields."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from observatory_storage.errors import ValidationError
from observatory_storage.hooks import LoggingHook
from observatory_storage.operations import StoreOperation

QUICK = StoreOperation("query", "traces", "list", seconds=0.01, rows=50)
SLOW = StoreOperation("flush", "trace_spans", "copy", "ok", 2.5, 1_000, 90_000, 2, 1)
FAILED = StoreOperation("acquire", outcome="PoolError", seconds=0.2)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG, logger="observatory_storage.operations")
    return caplog


def test_slow_operations_and_errors_are_warnings(log: pytest.LogCaptureFixture) -> None:
    hook = LoggingHook(slow_secs=1.0)
    for operation in (QUICK, SLOW, FAILED):
        hook.on_operation(operation)
    assert [(record.levelname, record.getMessage()) for record in log.records] == [
        ("DEBUG", "query list traces: ok in 0.010 s, 50 rows, 0 retries"),
        ("WARNING", "slow flush copy trace_spans: ok in 2.500 s, 1000 rows, 2 retries"),
        ("WARNING", "acquire: PoolError in 0.200 s, 0 rows, 0 retries"),
    ]


def test_facts_are_attributes_of_the_record(log: pytest.LogCaptureFixture) -> None:
    LoggingHook().on_operation(SLOW)
    (record,) = log.records
    facts = {name: value for name, value in vars(record).items() if name.startswith("storage_")}
    assert facts == {
        "storage_operation": "flush",
        "storage_table": "trace_spans",
        "storage_method": "copy",
        "storage_outcome": "ok",
        "storage_seconds": 2.5,
        "storage_rows": 1_000,
        "storage_bytes": 90_000,
        "storage_retries": 2,
        "storage_rejected": 1,
        "storage_slow": True,
    }


def test_another_logger_and_its_level_are_respected(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("shop.storage")
    caplog.set_level(logging.INFO, logger="shop.storage")
    hook = LoggingHook(slow_secs=1.0, logger=logger)
    hook.on_operation(QUICK)
    hook.on_operation(SLOW)
    assert [record.name for record in caplog.records] == ["shop.storage"]


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True])
def test_the_threshold_must_be_a_positive_number(value: Any) -> None:
    with pytest.raises(ValidationError, match="slow_secs"):
        LoggingHook(slow_secs=value)
