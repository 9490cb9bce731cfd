"""Sampled spans keep their weights in the spool, whatever becomes of their process."""

from __future__ import annotations

import signal
import subprocess
import sys

from observatory_embedded import EmbeddedPostgres
from observatory_storage.models import Trace, TraceSpan
from observatory_storage.pool import StoragePool
from observatory_storage.rows.consistent_sampling import ALL
from observatory_storage.writers import TailSampling, TraceWriter, WriterConfig
from tests.writers.helpers import a_span, eventually, fetch, span_id
from tests.writers.spool.spooling import away, files, replayed

WRITING = """
import os, signal, sys
from observatory_storage.config import PoolConfig, PostgresConfig, RetryConfig, StorageConfig
from observatory_storage.pool import StoragePool
from observatory_storage.writers import TailSampling, TraceWriter, WriterConfig
from tests.writers.helpers import a_span

url, directory = sys.argv[1:3]
pool = StoragePool(StorageConfig(
    postgres=PostgresConfig.from_url(url),
    pool=PoolConfig(min_connections=0),
    retry=RetryConfig(max_attempts=1, initial_delay_ms=1),
), connect=False)
writer = TraceWriter(pool, WriterConfig(
    flush_interval_secs=None, spool_dir=directory, sampling=TailSampling(share=0.25)
))
for trace in range(64):
    number = trace + 1
    writer.write_span(a_span(trace * 2**50 + 1, number, parent_span_id="f" * 16))
print(writer.flush().spooled, writer.buffer_stats().buffered, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_weights_in_its_spool(
    server: EmbeddedPostgres, pool: StoragePool, config: WriterConfig
) -> None:
    with away(server):
        done = subprocess.run(
            [sys.executable, "-c", WRITING, server.url, str(config.spool_dir)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stdout) == (-signal.SIGKILL, "16 0\n"), done.stderr
        assert len(files(config)) == 1
    with TraceWriter(pool, config) as writer:
        eventually(replayed(writer, 16))
    assert files(config) == []
    assert {row["sample_weight"] for row in fetch(pool, TraceSpan)} == {4}
    assert {row["sample_weight"] for row in fetch(pool, Trace)} == {4}


def test_close_decides_and_spools_while_the_database_is_away(
    server: EmbeddedPostgres, pool: StoragePool, config: WriterConfig
) -> None:
    sampling = WriterConfig(
        flush_interval_secs=None, spool_dir=config.spool_dir, sampling=TailSampling(share=0.5)
    )
    writer = TraceWriter(pool, sampling)
    with away(server):
        writer.write_spans(
            a_span(number, number % 100 + 1, parent_span_id="f" * 16) for number in (1, ALL - 1)
        )
        assert writer.buffer_stats().undecided == 2
        assert writer.close().spooled == 1
        assert writer.buffer_stats().buffered == 0
    with TraceWriter(pool, config) as other:
        eventually(replayed(other, 1))
    kept = (ALL - 1) % 100 + 1
    (row,) = fetch(pool, TraceSpan)
    assert (row["span_id"], row["sample_weight"]) == (span_id(kept), 2)
