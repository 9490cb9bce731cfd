"""Sessions terminated and servers restarted under writers: every span once, every trace exact."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields

import psycopg
from psycopg.conninfo import conninfo_to_dict

from observatory_storage.config import RetryConfig
from observatory_storage.embedded import EmbeddedPostgres
from observatory_storage.writers import WriterConfig, WriteStats
from tests.soak.scale import scaled, seeded
from tests.soak.verify import check
from tests.soak.workload import Workload
from tests.soak.writing import Report, Task, running, until
from tests.writers.helpers import eventually, quick_pool

PROCESSES, THREADS = 2, 4
DEADLINE_SECS = scaled(60.0, 1800.0)
SPANS = scaled(4_000, 200_000)
TERMINATIONS = scaled(6, 50)
RESTARTS = scaled(1, 3)
# How the server goes down, in turn.
ENDS: tuple[Callable[[EmbeddedPostgres], None], ...] = (
    lambda server: server.stop("immediate"),
    lambda server: server.stop(),
    lambda server: server.kill(),
)


def test_spans_of_two_processes_survive_terminations_and_restarts(
    frail_server: EmbeddedPostgres, database_url: str
) -> None:
    workload = Workload(SPANS, PROCESSES * THREADS)
    config = WriterConfig(
        batch_size=scaled(50, 500),
        max_concurrency=3,
        max_buffered=scaled(200, 2_000),
        flush_interval_secs=0.05,
    )
    retry = RetryConfig(max_attempts=4, initial_delay_ms=5, max_delay_ms=100)
    tasks = [
        Task(database_url, workload, first, THREADS, config, retry, DEADLINE_SECS)
        for first in range(0, workload.writers, THREADS)
    ]
    with quick_pool(database_url, retry) as pool, running(tasks) as processes:
        terminated = active = 0

        def terminate() -> None:
            nonlocal terminated, active
            # A writer's sessions are gone for moments, between two terminations or a restart.
            eventually(lambda: bool(ended := terminate_all(database_url)) and note(ended))

        def note(ended: list[bool]) -> bool:
            nonlocal terminated, active
            terminated, active = terminated + len(ended), active + sum(ended)
            return True

        def restart(end: Callable[[EmbeddedPostgres], None]) -> Callable[[], None]:
            def run() -> None:
                end(frail_server)
                frail_server.start()

            return run

        faults = [terminate] * TERMINATIONS
        faults += [restart(ENDS[n % len(ENDS)]) for n in range(RESTARTS)]
        for moment, fault in moments(faults, int(workload.sent * 0.95)):
            until(
                lambda moment=moment: sum(each.sent for each in processes) >= moment,  # type: ignore[misc]  # bound at once
                processes,
                DEADLINE_SECS,
            )
            fault()
        reports = [process.finish() for process in processes]
        assert sum(report.sent for report in reports) == workload.sent
        for report in reports:
            assert_adds_up(report)
        check(pool, workload)
    retries = sum(report.stats.retries for report in reports)
    failed = sum(report.stats.failed_flushes for report in reports)
    print(f"{terminated} sessions terminated, {active} at work; {retries=}, {failed=}")


def moments(
    faults: list[Callable[[], None]], most: int
) -> Iterable[tuple[int, Callable[[], None]]]:
    """When in the course of the work which fault comes, at random."""
    source = seeded()
    source.shuffle(faults)
    return zip(sorted(source.sample(range(most), len(faults))), faults, strict=True)


def terminate_all(url: str) -> list[bool]:
    """Terminate all other sessions of the database; for each, whether it was at work."""
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT pg_terminate_backend(pid), state <> 'idle' FROM pg_stat_activity"
            " WHERE datname = %s AND pid <> pg_backend_pid()",
            [conninfo_to_dict(url)["dbname"]],
        ).fetchall()
    return [bool(at_work) for _, at_work in rows]


def assert_adds_up(report: Report) -> None:
    stats = report.stats
    assert report.committed == report.sent == stats.rows == sum(stats.rows_by_method.values())
    assert report.spooled == 0
    counted = {"rows", "batches", "retries", "failed_flushes", "flush_seconds", "rows_by_method"}
    for name in {each.name for each in fields(WriteStats)} - counted:
        assert getattr(stats, name) == 0, name
