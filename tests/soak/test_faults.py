"""Writers whose sessions, server and commits fail: every span once, every trace exact."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path

from observatory_embedded import EmbeddedPostgres
from observatory_storage.config import RetryConfig
from observatory_storage.writers import WriterConfig, WriteStats
from tests.soak.proxy import CUTS, proxied
from tests.soak.scale import scaled, seeded
from tests.soak.troubles import ENDS, Troubles, as_writer, restart
from tests.soak.verify import check
from tests.soak.workload import Workload
from tests.soak.writing import Process, Report, Task, running, until
from tests.writers.helpers import quick_pool

PROCESSES, THREADS = 2, 4
DEADLINE_SECS = scaled(180.0, 3600.0)
CONFIG = WriterConfig(
    batch_size=scaled(50, 500),
    max_concurrency=3,
    max_buffered=scaled(200, 2_000),
    flush_interval_secs=0.05,
)
RETRY = RetryConfig(max_attempts=4, initial_delay_ms=5, max_delay_ms=100)


def test_terminated_sessions_and_restarted_servers(
    frail_server: EmbeddedPostgres, frail_url: str
) -> None:
    source = seeded()
    troubles = Troubles(frail_url, source)
    faults: list[Callable[[], None]] = [troubles.terminate_some] * scaled(6, 50)
    faults += [partial(restart, frail_server, ENDS[n]) for n in range(scaled(1, 3))]
    survive(frail_url, scaled(1_200, 200_000), faults, source)
    print(f"{troubles.ended} sessions terminated, {troubles.at_work} of them at work")
    assert troubles.terminations == scaled(6, 50)
    assert troubles.at_work, "all were terminated while they had nothing to do"


def test_random_faults_lose_no_rows(frail_url: str) -> None:
    source = seeded()
    troubles = Troubles(frail_url, source)
    faults = [*troubles.every()] * scaled(2, 25)
    survive(frail_url, scaled(1_200, 100_000), faults, source, statement_timeout_ms=100)


def test_commits_whose_answer_is_lost(frail_url: str, tmp_path: Path) -> None:
    """Whether they have come about or not, they are sent again, and count once."""
    source = seeded()
    with proxied(frail_url, tmp_path, source, share=0.2) as (url, proxy):
        survive(url, scaled(1_500, 100_000), [], source)
        assert set(proxy.cuts) == {*CUTS}
        print(dict(proxy.cuts))


def survive(
    url: str,
    spans: int,
    faults: list[Callable[[], None]],
    source: random.Random,
    statement_timeout_ms: int = 0,
) -> None:
    """Write so many spans by two processes of four threads, while all the faults come about."""
    workload = Workload(spans, PROCESSES * THREADS)
    tasks = [
        Task(
            as_writer(url),
            workload,
            first,
            THREADS,
            CONFIG,
            RETRY,
            DEADLINE_SECS,
            statement_timeout_ms=statement_timeout_ms,
        )
        for first in range(0, workload.writers, THREADS)
    ]
    sent = workload.sent
    with running(tasks) as processes:
        befall(processes, faults, source, int(sent * 0.95))
        reports = [process.finish() for process in processes]
    assert sum(report.sent for report in reports) == sent
    for report in reports:
        assert_adds_up(report)
    with quick_pool(url) as pool:
        check(pool, workload)
    retries = [report.stats.retries for report in reports]
    failed_flushes = [report.stats.failed_flushes for report in reports]
    print(f"{retries=} {failed_flushes=}")
    assert any(retries + failed_flushes), "nobody has noticed any fault"


def befall(
    processes: Sequence[Process],
    faults: list[Callable[[], None]],
    source: random.Random,
    most: int,
) -> None:
    """Bring the faults about at random moments of the work, in a random order."""
    source.shuffle(faults)
    for moment, fault in zip(sorted(source.sample(range(most), len(faults))), faults, strict=True):
        until(
            lambda moment=moment: sum(process.sent for process in processes) >= moment,  # type: ignore[misc]  # a default
            processes,
            DEADLINE_SECS,
        )
        fault()


# What says how the work went; all else counts rows that went another way than they should.
_OF_THE_WORK = {
    "rows",
    "batches",
    "bytes",
    "retries",
    "failed_flushes",
    "flush_seconds",
    "flush_seconds_p50",
    "flush_seconds_p95",
    "flush_seconds_p99",
    "flush_seconds_max",
    "rows_per_second",
    "recent_rows_per_second",
    "rows_by_method",
    "batches_by_method",
}


def assert_adds_up(report: Report) -> None:
    stats = report.stats
    assert report.committed == report.sent == stats.rows == sum(stats.rows_by_method.values())
    assert stats.batches == sum(stats.batches_by_method.values())
    assert report.spooled == 0
    for name in {each.name for each in fields(WriteStats)} - _OF_THE_WORK:
        assert getattr(stats, name) == 0, name
