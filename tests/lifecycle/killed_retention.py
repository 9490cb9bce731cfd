"""Retention in a child process that kills itself at some statement, again and again."""

from __future__ import annotations

import os
import random
import signal
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from observatory_storage.errors import Conflict
from observatory_storage.lifecycle.retention_results import RetentionResult
from observatory_storage.otlp.compression import zstd_module
from observatory_storage.pool import StoragePool
from observatory_storage.writers import CopyWriter
from tests.lifecycle.days import HOUR, a_call, noon, oddities, retain, traces_in
from tests.payloads.framed import a_text
from tests.payloads.invariants import check_payloads
from tests.writers.helpers import a_log, eventually, fork, quick_pool, trace_id

# About as many as a run has with an archive.
_STATEMENTS = 300
PINNED, CROSSING, RECENT, OLD = 1, 2, 3, range(10, 16)


def check_killed_runs(url: str, folder: Path, source: random.Random, rounds: int) -> list[int]:
    """Kill each round's first runs; returns at which statements. The last run must complete."""
    kills = []
    for number in range(rounds):
        with quick_pool(url) as pool:
            _write_days(pool)
        archive = folder / str(number) if number % 2 else None
        for _ in range(3):
            statement = source.randint(1, _STATEMENTS)
            if _is_killed_at(url, statement, archive):
                kills.append(statement)
        with quick_pool(url) as pool:
            _complete(pool, archive)
            assert oddities(url) == {}, kills
            assert check_payloads(pool) == 6, kills
            assert traces_in(pool) == {PINNED, CROSSING, RECENT}, kills
            with pool.unit_of_work() as work:
                assert [log.timestamp for log in work.logs.list()] == [noon(1)], kills
                assert work.traces.get_by_trace_id(trace_id(PINNED)).span_count == 3
                assert len(work.traces.get_spans(trace_id(CROSSING))) == 2
            _clear(pool)
        if archive is not None:
            assert not [path for path in archive.iterdir() if path.name.startswith(".")], kills
            files = [zstd_module().decompress(path.read_bytes()) for path in archive.iterdir()]
            archived = b"".join(files)
            assert all(trace_id(trace).encode() in archived for trace in OLD), kills
            assert archived.count(b'"logRecords":[{') >= 2, kills
    return kills


def _write_days(pool: StoragePool) -> None:
    midnight = noon(3).replace(hour=0)
    attributes = {"prompt": a_text(1)}
    spans = [
        *(a_call(PINNED, n, noon(10 - n), attributes=attributes) for n in (1, 2, 3)),
        a_call(CROSSING, 1, midnight - HOUR, attributes=attributes),
        a_call(CROSSING, 2, midnight, attributes=attributes),
        a_call(RECENT, 1, noon(1), attributes=attributes),
        *(a_call(n, n, noon(n - 4), attributes=attributes) for n in OLD),
    ]
    CopyWriter(pool, payloads="compressed").write_spans(spans)
    CopyWriter(pool).write_logs([a_log(timestamp=noon(day)) for day in (1, 5, 6)])
    with pool.unit_of_work() as work:
        work.traces.pin(trace_id(PINNED))
        work.commit()


def _clear(pool: StoragePool) -> None:
    with pool.unit_of_work() as work:
        for trace in (PINNED, CROSSING, RECENT):
            work.traces.delete(trace_id(trace))
        work.session.execute(sa.text("TRUNCATE logs"))
        work.commit()


def _settings(archive: Path | None) -> dict[str, Any]:
    return {"traces": "3d", "logs": "3d", "archive": archive}


def _is_killed_at(url: str, statement: int, archive: Path | None) -> bool:
    """Run retention until it is killed; False if it has done its work before."""
    left = statement

    def count(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        with quick_pool(url) as pool:
            sa.event.listen(pool.engine, "before_cursor_execute", count)
            sa.event.listen(pool.engine, "commit", count)
            _complete(pool, archive)

    _, status = os.waitpid(fork(work), 0)
    return os.WIFSIGNALED(status)


def _complete(pool: StoragePool, archive: Path | None) -> None:
    """Run retention until it is complete."""
    results: list[RetentionResult] = []

    def is_complete() -> bool:
        try:  # the server may not have noticed yet that the killed process has gone
            results.append(retain(pool, **_settings(archive)))
        except Conflict:
            return False
        return results[-1].is_complete

    eventually(is_complete)
