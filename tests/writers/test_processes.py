"""The buffered writers when their process forks, and when it ends."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from observatory_embedded import EmbeddedPostgres
from observatory_storage.errors import StorageError
from observatory_storage.models import LogRecord
from observatory_storage.pool import StoragePool
from observatory_storage.writers import FlushResult, LogWriter, WriterConfig
from tests.writers.helpers import (
    START,
    a_log,
    count,
    eventually,
    fetch,
    fork,
    locked,
    quick_pool,
    wait_for,
)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_begins_with_an_empty_buffer(pool: StoragePool, database_url: str) -> None:
    closed = LogWriter(pool)
    closed.close()
    with LogWriter(pool, WriterConfig(batch_size=3)) as writer:
        pool.partitions.ensure("logs", [START])
        with locked(database_url, "logs"):
            # One batch on its way and one row behind it, when the process forks.
            writer.write_logs(a_log(n, body="parent") for n in range(4))
            eventually(lambda: writer.buffer_stats().in_flight == 3)
            child = fork(lambda: in_child(writer, closed))
        wait_for(child)
        assert writer.flush().committed == 4
        wait_for(fork(lambda: in_child(writer, closed)))
    assert sorted(row["body"] for row in fetch(pool, LogRecord)) == ["child"] * 4 + ["parent"] * 4


def test_threads_of_a_child_that_begin_at_once_lose_nothing(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a worker with threads that a server forks from the loaded application."""
    new_buffer = LogWriter._new_buffer

    def slowly(writer: LogWriter) -> Any:
        time.sleep(0.2)
        return new_buffer(writer)

    def write_in_threads() -> None:
        monkeypatch.setattr(LogWriter, "_new_buffer", slowly)
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(writer.write_log, [a_log(n) for n in range(4)]))
        assert writer.flush() == FlushResult(committed=4)

    with LogWriter(pool) as writer:
        wait_for(fork(write_in_threads))
    assert len(fetch(pool, LogRecord)) == 4


def in_child(writer: LogWriter, closed: LogWriter) -> None:
    assert writer.buffer_stats().buffered == writer.write_stats().rows == 0
    assert writer.flush() == FlushResult()
    writer.write_log(a_log(body="child"))
    assert writer.flush() == FlushResult(committed=1)
    writer.write_log(a_log(body="child"))
    assert writer.close() == FlushResult(committed=1)
    with pytest.raises(StorageError, match="closed"):
        closed.write_log(a_log())


AT_EXIT = """
import os
import sys
from datetime import UTC, datetime
from observatory_storage.config import PoolConfig, PostgresConfig, StorageConfig
from observatory_storage.pool import StoragePool
from observatory_storage.writers import LogWriter, TraceWriter, WriterConfig

config = StorageConfig(
    postgres=PostgresConfig.from_url(sys.argv[1], layout=os.environ.get("DB_LAYOUT", "plain")),
    pool=PoolConfig(min_connections=0),
)
pool = StoragePool(config)
patient = WriterConfig(flush_interval_secs=None, batch_size=4)
logs, traces = LogWriter(pool, patient), TraceWriter(pool, patient)
now = datetime.now(UTC)
for n in range(10):
    logs.write_log({"timestamp": now, "body": f"{n}"})
    traces.write_trace({"trace_id": f"trace {n}", "start_time": now})
"""


@pytest.mark.parametrize("end", ["", "raise SystemExit(0)", "del logs, traces, pool"])
def test_the_end_of_the_interpreter_flushes(pool: StoragePool, database_url: str, end: str) -> None:
    done = run(AT_EXIT + end, database_url)
    assert (done.returncode, done.stderr) == (0, "")
    assert (count(pool, "logs"), count(pool, "traces")) == (10, 10)


def test_rows_that_cannot_be_flushed_at_the_end_are_reported(
    embedded_server: EmbeddedPostgres,
) -> None:
    url = embedded_server.url
    with quick_pool(url) as pool:
        pool.run_migrations()
    embedded_server.stop()
    quick = AT_EXIT.replace(
        "config = StorageConfig(", "config = StorageConfig(retry=RETRY,"
    ).replace("pool = StoragePool(config)", "pool = StoragePool(config, connect=False)")
    retry = (
        "from observatory_storage.config import RetryConfig\nRETRY = RetryConfig(max_attempts=1)\n"
    )
    done = run(retry + quick, url)
    assert done.returncode == 0
    assert done.stderr.count("10 rows were still buffered at exit and are lost") == 2


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# What is registered first runs last: after the writers were closed.
WHILE_OTHERS_WRITE = (
    """
import atexit, threading, time
taken = []
atexit.register(lambda: print(len(taken), writer.write_stats().rows, writer.buffer_stats()))
"""
    + AT_EXIT
    + """
writer = LogWriter(pool, WriterConfig(batch_size=5, max_concurrency=2, max_buffered=50))

def write():
    while True:
        writer.write_log({"timestamp": now, "body": "more"})
        taken.append(1)

for _ in range(3):
    threading.Thread(target=write, daemon=True).start()
while len(taken) < 500:
    time.sleep(0.001)
threading.excepthook = lambda _: None  # they learn that the writer is closed
"""
)


def test_rows_that_other_threads_write_at_the_end_are_written_or_refused(
    pool: StoragePool, database_url: str
) -> None:
    done = run(WHILE_OTHERS_WRITE, database_url)
    assert done.returncode == 0, done.stderr
    taken, rows, buffered = done.stdout.split(maxsplit=2)
    assert buffered.startswith("BufferStats(buffered=0, in_flight=0")
    # A thread may have been stopped between a row and its count.
    assert int(taken) <= int(rows) <= int(taken) + 3
    assert count(pool, "logs") == int(rows) + 10


IN_PROCESSES = """
import multiprocessing, os, sys
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from observatory_storage.config import PoolConfig, PostgresConfig, StorageConfig
from observatory_storage.pool import StoragePool
from observatory_storage.writers import LogWriter, WriterConfig

writer = None

def write(url, body):
    global writer
    if writer is None:
        layout = os.environ.get("DB_LAYOUT", "plain")
        postgres = PostgresConfig.from_url(url, layout=layout)
        pool = StoragePool(StorageConfig(postgres=postgres, pool=PoolConfig(min_connections=0)))
        writer = LogWriter(pool, WriterConfig(flush_interval_secs=None))
    writer.write_log({"timestamp": datetime.now(UTC), "body": body})

if __name__ == "__main__":
    method, url = sys.argv[1:]
    context = multiprocessing.get_context(method)
    if method == "fork":  # the writer is the parent's, too
        write(url, "parent")
    process = context.Process(target=write, args=(url, "process"))
    process.start()
    process.join()
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        executor.submit(write, url, "executor").result()
"""


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_the_end_of_a_process_of_multiprocessing_flushes(
    pool: StoragePool, database_url: str, tmp_path: Path, method: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(IN_PROCESSES)
    command = [sys.executable, "-W", "ignore", str(script), method, database_url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    expected = ["executor", "parent", "process"] if method == "fork" else ["executor", "process"]
    assert sorted(row["body"] for row in fetch(pool, LogRecord)) == expected
