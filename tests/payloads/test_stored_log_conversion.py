"""Maintenance moves stored values of log records where the configuration says."""

from __future__ import annotations

from typing import Any

from observatory_storage.lifecycle.payload_moves import MovedPayloads
from observatory_storage.models import PartitionState
from tests.payloads.framed import START
from tests.payloads.logged import check_logs, framed_logs, records, whole_logs, write_logs
from tests.payloads.test_stored_conversion import storing
from tests.writers.helpers import fetch

LOGS = f"logs_p{START:%Y%m%d}"


def rule_of(pool: Any) -> Any:
    states = {row["partition_name"]: row["payload_rule"] for row in fetch(pool, PartitionState)}
    return states[LOGS]


def test_maintenance_moves_values_of_closed_partitions_there_and_back(database_url: str) -> None:
    with storing(database_url, convert_stored=False) as pool:
        write_logs(pool, *records([1, 2, 3], 3), payloads="inline")
        rows = whole_logs(pool)
        pool.maintain()
        assert framed_logs(pool) == 0
    with storing(database_url) as pool:
        report = pool.maintain()
        (step,) = (step for step in report.steps if step.name == "convert_payloads")
        assert step.result == MovedPayloads((LOGS,), rows=9, changed_rows=9)
        assert framed_logs(pool) == 9
        check_logs(pool)
        assert whole_logs(pool) == rows
        assert rule_of(pool) == "compressed 1200"
        assert pool.maintain().steps
        assert framed_logs(pool) == 9
    with storing(database_url, "inline") as pool:
        pool.maintain()
        assert framed_logs(pool) == 0
        assert whole_logs(pool) == rows
        assert rule_of(pool) == "inline"
