"""Processes that are killed, end or fork leave their spool to others."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import Any

import pytest

from observatory_embedded import EmbeddedPostgres
from observatory_storage.pool import StoragePool
from observatory_storage.writers import (
    FlushResult,
    LogWriter,
    TraceWriter,
    WriterConfig,
)
from observatory_storage.writers.spool import replay
from tests.writers.helpers import (
    a_log,
    count,
    eventually,
    fork,
    wait_for,
)
from tests.writers.spool.spooling import away, bodies, files, replayed
from tests.writers.trace_model import check_traces

WRITING = """
import os, signal, sys
from datetime import UTC, datetime, timedelta
from observatory_storage.config import PoolConfig, PostgresConfig, RetryConfig, StorageConfig
from observatory_storage.pool import StoragePool
from observatory_storage.writers import LogWriter, TraceWriter, WriterConfig

url, directory, name = sys.argv[1:4]
pool = StoragePool(StorageConfig(
    postgres=PostgresConfig.from_url(url),
    pool=PoolConfig(min_connections=0),
    retry=RetryConfig(max_attempts=1, initial_delay_ms=1),
), connect=False)
config = WriterConfig(batch_size=4, flush_interval_secs=None, spool_dir=directory)
logs, traces = LogWriter(pool, config), TraceWriter(pool, config)
now = datetime(2026, 3, 14, tzinfo=UTC)
for n in range(10):
    logs.write_log({"timestamp": now, "body": f"{name} {n}"})
    traces.write_span({
        "trace_id": f"{n % 2 + 1:032x}", "span_id": os.urandom(8).hex(), "name": "operation",
        "start_time": now + timedelta(seconds=n), "end_time": now + timedelta(seconds=n + 1),
    })
"""
KILLED = """
print(logs.flush().spooled, traces.flush().spooled, flush=True)
sys.stdin.readline()
os.kill(os.getpid(), signal.SIGKILL)
"""


def writing(server: EmbeddedPostgres, config: WriterConfig, name: str, end: str) -> Any:
    return subprocess.Popen(
        [sys.executable, "-c", WRITING + end, server.url, str(config.spool_dir), name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_processes_killed_after_flush_lose_nothing(
    server: EmbeddedPostgres, pool: StoragePool, config: WriterConfig
) -> None:
    """Two share the directory and traces; another process writes what they have left."""
    with away(server):
        processes = [writing(server, config, name, KILLED) for name in ("one", "two")]
        for process in processes:
            assert process.stdout.readline() == "10 10\n"
        # Nobody takes over while they live.
        with LogWriter(pool, config) as bystander:
            bystander.write_log(a_log(body="bystander"))
            assert bystander.flush() == FlushResult(spooled=1)
            assert len(files(config)) == 5
            for process in processes:
                process.communicate("\n", timeout=60)
                assert process.returncode == -signal.SIGKILL
        assert len(files(config)) == 5
    with LogWriter(pool, config) as writer:
        eventually(replayed(writer, 41))
    assert files(config) == []
    expected = [f"{name} {n}" for name in ("one", "two") for n in range(10)]
    assert bodies(pool) == ["bystander", *expected]
    assert count(pool, "trace_spans") == 20
    assert check_traces(pool) == 2


@pytest.mark.parametrize("end", ["", "del logs, traces, pool"])
def test_the_end_of_the_interpreter_spools(
    server: EmbeddedPostgres, pool: StoragePool, config: WriterConfig, end: str
) -> None:
    with away(server):
        process = writing(server, config, "ended", end)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0
        assert "lost" not in errors
    assert len(files(config)) == 2
    with TraceWriter(pool, config) as writer:
        eventually(replayed(writer, 20))
    assert (count(pool, "logs"), count(pool, "trace_spans")) == (10, 10)
    check_traces(pool)


def test_the_end_of_the_interpreter_empties_the_spool_first(
    server: EmbeddedPostgres, pool: StoragePool, config: WriterConfig
) -> None:
    with away(server):
        process = writing(
            server, config, "back", "print(logs.flush().spooled, flush=True); sys.stdin.readline()"
        )
        assert process.stdout.readline() == "10\n"
    process.communicate("\n", timeout=60)
    assert process.returncode == 0
    assert files(config) == []
    assert (count(pool, "logs"), count(pool, "trace_spans")) == (10, 10)


def test_a_writer_that_lives_takes_over_from_one_that_died(
    server: EmbeddedPostgres,
    pool: StoragePool,
    config: WriterConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replay, "_LOOK_SECS", 0.001)
    with LogWriter(pool, config) as writer:
        with away(server):
            process = writing(server, config, "dead", KILLED)
            process.communicate("\n", timeout=60)
        assert len(files(config)) == 2
        writer.write_log(a_log())
        assert writer.flush() == FlushResult(committed=1)
        eventually(replayed(writer, 20))
    assert files(config) == []
    assert count(pool, "logs") == 11


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_both_sides_of_a_fork_spool_their_own_rows(
    server: EmbeddedPostgres, pool: StoragePool, config: WriterConfig
) -> None:
    with LogWriter(pool, config) as writer:

        def in_child() -> None:
            assert writer.write_stats().spooled == 0
            writer.write_log(a_log(body="child"))
            assert writer.flush() == FlushResult(spooled=1)
            assert writer.close() == FlushResult()
            assert len(files(config)) == 2

        with away(server):
            writer.write_log(a_log(body="parent"))
            assert writer.flush() == FlushResult(spooled=1)
            wait_for(fork(in_child))
            # The child has not let go of what is the parent's.
            with LogWriter(pool, config) as another:
                assert another.flush() == FlushResult()
        eventually(replayed(writer, 2))
    assert bodies(pool) == ["child", "parent"]
    assert files(config) == []
