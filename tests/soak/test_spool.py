"""Writers with a spool killed while the server comes and goes: nothing acknowledged is lost."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from observatory_embedded import EmbeddedPostgres
from observatory_storage.config import RetryConfig
from observatory_storage.writers import TraceWriter, WriterConfig
from tests.soak.scale import scaled, seeded
from tests.soak.verify import check
from tests.soak.workload import Workload
from tests.soak.writing import Process, Task, running, until
from tests.writers.helpers import eventually, quick_pool

PROCESSES, THREADS = 2, scaled(2, 4)
DEADLINE_SECS = scaled(180.0, 3600.0)
SPANS = scaled(3_000, 100_000)
GENERATIONS = scaled(3, 12)
MOST_FLUSHES = scaled(6, 40)


def test_flushed_rows_survive_the_process(
    frail_server: EmbeddedPostgres, frail_url: str, tmp_path: Path
) -> None:
    """Each generation of processes goes on where the last one's flushes returned.

    What they told of is in the database or in the spool; the others are sent again.
    """
    source = seeded()
    workload = Workload(SPANS, PROCESSES * THREADS, corrected=False)
    config = WriterConfig(
        batch_size=40, max_concurrency=2, flush_interval_secs=0.05, spool_dir=tmp_path / "spool"
    )
    # Used up long before the server is back.
    retry = RetryConfig(max_attempts=2, initial_delay_ms=1, max_delay_ms=5)
    tasks = [
        Task(
            frail_url,
            workload,
            first,
            THREADS,
            config,
            retry,
            DEADLINE_SECS,
            acknowledge=True,
        )
        for first in range(0, workload.writers, THREADS)
    ]
    spooled_at_death = 0
    for _ in range(GENERATIONS):
        with running(tasks) as processes:
            live_and_die(processes, frail_server, source)
            tasks = [replace(process.task, done=process.done) for process in processes]
        spooled_at_death += len(spool_files(config))
    assert spooled_at_death, "none died with rows in its spool"
    frail_server.start()
    with quick_pool(frail_url) as pool:
        with running(tasks) as processes:
            reports = [process.finish() for process in processes]
        with TraceWriter(pool, config):  # what their own ends have left of the dead ones' rows
            eventually(lambda: spool_files(config) == [])
        for report in reports:
            stats = report.stats
            assert report.committed + report.spooled == report.sent == stats.rows + stats.spooled
            assert stats.rejected == stats.dropped == stats.damaged == 0
        check(pool, workload)
    print(f"{spooled_at_death} files of dead processes; replayed at the end:", end=" ")
    print([report.stats.replayed for report in reports])


def live_and_die(
    processes: Sequence[Process], server: EmbeddedPostgres, source: random.Random
) -> None:
    """Meanwhile the server goes or comes back; each is killed when one of its flushes returned."""
    for process in processes:
        process.allow(1)
    for process in processes:
        until(lambda: process.flushes == 1, [process], DEADLINE_SECS)  # noqa: B023 - called here
    flushes = [source.randint(2, MOST_FLUSHES) for _ in processes]
    for process, more in zip(processes, flushes, strict=True):
        # Some die while they wait, others at work on what nobody has been told of.
        process.allow(more + source.choice((0, 2)))
    if server.running:
        server.stop(source.choice(("fast", "immediate")))
    else:
        server.start()
    for process, more in zip(processes, flushes, strict=True):
        until(lambda: process.flushes > more, [process], DEADLINE_SECS)  # noqa: B023 - as above
        process.kill()


def spool_files(config: WriterConfig) -> list[Path]:
    assert config.spool_dir is not None
    return [path for path in Path(config.spool_dir).iterdir() if path.name != ".lock"]
