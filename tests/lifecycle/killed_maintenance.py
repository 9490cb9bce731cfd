"""Maintenance in a child process that is killed at some statement, and what it must come to."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from observatory_storage.errors import StorageError
from observatory_storage.layout import PARTITIONED
from observatory_storage.lifecycle.maintenance import MaintenanceReport
from observatory_storage.pool import StoragePool
from observatory_storage.tables import TABLES
from observatory_storage.writers import CopyWriter
from tests.lifecycle.days import DAY, NOW, a_call, oddities, write_spans
from tests.lifecycle.pools import kept_pool, ranges, scalar
from tests.lifecycle.rolled import rollups
from tests.payloads.framed import a_text
from tests.payloads.invariants import check_payloads, whole_rows
from tests.writers.helpers import a_log, contents, eventually, fork

__all__ = ["end_state", "kill_at", "statements_of_a_run", "write_a_week"]

KEPT_DAYS = 3


def write_a_week(url: str) -> None:
    """Write traces and log records of a week, which nobody has maintained yet."""
    with kept_pool(url, days=KEPT_DAYS) as pool:
        for flush in range(2):  # each has frames of its own, which are packed when a day closes
            write_spans(
                pool,
                *(
                    a_call(
                        trace,
                        number + 2 * flush,
                        NOW - DAY * (trace % 7) - timedelta(hours=10 * number, minutes=flush),
                        attributes={"prompt": a_text(trace, 2_000)},
                    )
                    for trace in range(1, 30)
                    for number in (1, 2)
                ),
            )
        for day in range(7):
            _write_logs(pool, (NOW - DAY * day - timedelta(minutes=n) for n in range(5)))


def _write_logs(pool: StoragePool, times: Iterable[datetime]) -> None:
    CopyWriter(pool).write_logs([a_log(timestamp=time) for time in times])


def statements_of_a_run(url: str) -> int:
    """Maintain the store; return how many statements and commits that took."""
    count = 0

    def note(*_: Any) -> None:
        nonlocal count
        count += 1

    with kept_pool(url, days=KEPT_DAYS) as pool:
        _listen(pool, note)
        _maintained(pool)
    return count


def kill_at(url: str, statement: int) -> bool:
    """Maintain the store in a child that is killed at a statement; False if it ended before."""
    left = statement

    def note(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        with kept_pool(url, days=KEPT_DAYS) as pool:
            _listen(pool, note)
            _maintained(pool)

    _, status = os.waitpid(fork(work), 0)
    return os.WIFSIGNALED(status)


def end_state(url: str) -> dict[str, Any]:
    """What the store comes to when it is maintained until nothing is left to do."""
    with kept_pool(url, days=KEPT_DAYS) as pool:
        _maintained(pool)
        assert oddities(url) == {}
        assert check_payloads(pool) > 0
        with pool.engine.connect() as connection:
            invalid = sa.text("SELECT count(*) FROM pg_index WHERE NOT indisvalid AND indislive")
            closed = sa.text("SELECT partition_name FROM partition_states ORDER BY 1")
            marks = sa.text("SELECT count(*) FROM span_changes WHERE level = 0")
            state: dict[str, Any] = {
                "closed": connection.scalars(closed).all(),
                "invalid indexes": connection.scalar(invalid),
                "marks": connection.scalar(marks),
            }
        return state | {
            "rows": {table: rows for table, rows in contents(pool).items() if table in TABLES},
            "whole rows": whole_rows(pool),
            "frames": scalar(pool, "SELECT count(*) FROM payload_frames"),
            "rollups": rollups(pool),
            "partitions": {table: ranges(pool, table) for table in PARTITIONED},
        }


def _listen(pool: StoragePool, note: Any) -> None:
    sa.event.listen(pool.engine, "before_cursor_execute", note)
    sa.event.listen(pool.engine, "commit", note)


def _maintained(pool: StoragePool) -> None:
    """Maintain until a run does everything that it could."""
    reports: list[MaintenanceReport] = []

    def is_done() -> bool:
        try:  # the server may not have noticed yet that a killed process has gone
            report = pool.maintain(now=NOW)
        except StorageError as error:
            if not error.retryable:
                raise
            return False
        reports.append(report)
        steps = [step.result for step in report.steps]
        return not report.is_skipped and all(
            getattr(result, "is_complete", True) for result in steps
        )

    eventually(is_done)
