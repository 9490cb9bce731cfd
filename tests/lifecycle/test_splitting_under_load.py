"""Partitions are split while others write and read them, who notice nothing."""

from __future__ import annotations

import threading
from typing import Any

from observatory_storage import LogFilters
from observatory_storage.lifecycle.run import Run
from observatory_storage.lifecycle.splitting import split_partitions
from observatory_storage.models import LogRecord
from observatory_storage.pool import StoragePool
from observatory_storage.writers import CopyWriter
from tests import citus
from tests.lifecycle.full_month import DAY, DAYS, FIRST, HOUR, NOW, logs, make_month, rows_in_place
from tests.lifecycle.pools import pool_with, ranges
from tests.writers.helpers import a_span, count, event, eventually, fetch

pytestmark = citus.not_there("partitions are not split")


def test_writers_and_readers_notice_nothing(database_url: str) -> None:
    with pool_with(database_url, split_rows=30) as pool:
        make_month(pool, "logs", "trace_spans", "trace_events")
        CopyWriter(pool).write_logs(logs(0, 300))
        CopyWriter(pool).write_spans(spans_of(0, "first"))
        over = threading.Event()
        failures: list[BaseException] = []
        written = [300]

        def write() -> None:
            with pool_with(database_url) as own:
                writer = CopyWriter(own)
                round_ = 0
                while not over.is_set():
                    writer.write_logs(logs(written[0], 20))
                    written[0] += 20
                    writer.write_spans(spans_of(round_ % 7, f"round {round_}"))
                    round_ += 1

        def read() -> None:
            filters = LogFilters(start_time=FIRST, end_time=FIRST + 31 * DAY)
            with pool_with(database_url) as own:
                while not over.is_set():
                    least = written[0]
                    with own.unit_of_work() as uow:
                        found = uow.logs.get_stats(filters).log_count
                        spans = len(uow.traces.list_spans(limit=1000))
                    assert found >= least, (found, least)
                    assert spans >= 40

        def watched(work: Any) -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - told by the test
                failures.append(error)
                over.set()

        threads = [threading.Thread(target=watched, args=(work,)) for work in (write, read)]
        for thread in threads:
            thread.start()
        try:
            done: set[str] = set()
            eventually(lambda: _split_some(pool, done) or bool(failures))
            # They go on for a while with the new partitions.
            goal = written[0] + 60
            eventually(lambda: written[0] >= goal or bool(failures))
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert failures == []
        for table, column in (("logs", "timestamp"), ("trace_spans", "start_time")):
            assert list(ranges(pool, table)) == DAYS
            assert rows_in_place(pool, table, column)
        assert count(pool, "logs") == written[0]
        assert len({row["id"] for row in fetch(pool, LogRecord)}) == written[0]


def _split_some(pool: StoragePool, done: set[str]) -> bool:
    done |= {one.partition for one in split_partitions(Run(pool, NOW)).split}
    return done >= {"logs_p202601", "trace_spans_p202601"}


def spans_of(first: int, name: str) -> list[dict[str, Any]]:
    """Forty spans and some others, each of which replaces itself when it is written again."""
    return [
        a_span(
            n, n, name=name, start_time=FIRST + n * 11 * HOUR, end_time=None, events=[event(name)]
        )
        for n in range(1 + first % 3, 41 + first)
    ]
