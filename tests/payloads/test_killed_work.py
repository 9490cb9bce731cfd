"""Packing and moving that are killed at any point lose nothing and double nothing."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from observatory_storage.errors import Conflict, ConnectionLost
from observatory_storage.lifecycle import frame_packing
from observatory_storage.lifecycle.closing import close_partitions
from observatory_storage.lifecycle.payload_conversion import convert_payloads
from observatory_storage.lifecycle.run import Run
from observatory_storage.lifecycle.splitting import split_partitions
from observatory_storage.pool import StoragePool
from tests.lifecycle.days import oddities
from tests.payloads.framed import frame_count, turns, write
from tests.payloads.invariants import check_payloads, framed_rows, whole_rows
from tests.payloads.test_packing import pack
from tests.writers.helpers import eventually, fork, quick_pool

TRACES = range(1, 8)
# Fewer than each of them takes.
STATEMENTS = {"packing": 14, "closing": 90, "to frames": 20, "to rows": 20}

Work = Callable[[StoragePool], Any]
WORKS: dict[str, Work] = {
    "packing": pack,
    "closing": lambda pool: (split_partitions(Run(pool)), close_partitions(Run(pool))),
    "to frames": lambda pool: convert_payloads(pool, "compressed"),
    "to rows": lambda pool: convert_payloads(pool, "inline"),
}


@pytest.fixture(autouse=True)
def _little_is_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing gives back the space of any partition."""
    monkeypatch.setattr(frame_packing, "_FREE_BYTES", 0)


@pytest.fixture
def written(database_url: str) -> list[Any]:
    """What was written: some of it in several frames, some of it in rows."""
    with quick_pool(database_url) as pool:
        write(pool, *turns(TRACES, 3))
        write(pool, *turns(range(20, 24), 2), payloads="inline")
        rows = whole_rows(pool)
        # `whole_rows` agrees with what was given, which is not taken from the store.
        given = [turn for flush in turns(TRACES, 3) for turn in flush]
        texts = " ".join(row[2]["attributes"] for row in rows["trace_spans"])
        assert all(turn["attributes"]["gen_ai.system_instructions"] in texts for turn in given)
        return [rows]


def is_killed_at(url: str, work: Work, statement: int) -> bool:
    left = statement

    def note(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def child() -> None:
        with quick_pool(url) as pool:
            sa.event.listen(pool.engine, "before_cursor_execute", note)
            sa.event.listen(pool.engine, "commit", note)
            work(pool)

    _, status = os.waitpid(fork(child), 0)
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("name", WORKS)
def test_a_killed_process_loses_nothing(database_url: str, written: list[Any], name: str) -> None:
    source = random.Random(name)
    killed = [
        is_killed_at(database_url, WORKS[name], source.randint(1, STATEMENTS[name]))
        for _ in range(4)
    ]
    assert any(killed)
    with quick_pool(database_url) as pool:
        check_payloads(pool)
        assert whole_rows(pool) == written[0]
        finish(pool, name)
        check_payloads(pool)
        assert whole_rows(pool) == written[0]


@pytest.mark.parametrize("name", WORKS)
def test_terminated_backends_lose_nothing(database_url: str, written: list[Any], name: str) -> None:
    source = random.Random(name)
    terminated: list[int] = []
    left = 0

    def note(connection: sa.Connection, *_: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            info = connection.connection.dbapi_connection.info  # type: ignore[union-attr]
            terminated.append(info.backend_pid)
            with psycopg.connect(database_url) as other:
                other.execute(f"SELECT pg_terminate_backend({info.backend_pid}, 5000)")

    with quick_pool(database_url) as pool:
        sa.event.listen(pool.engine, "before_cursor_execute", note)
        for _ in range(4):
            left = source.randint(1, STATEMENTS[name])
            with suppress(ConnectionLost):
                WORKS[name](pool)
        left = 0
        assert terminated
        check_payloads(pool)
        assert whole_rows(pool) == written[0]
        finish(pool, name)
        check_payloads(pool)
        assert whole_rows(pool) == written[0]


def finish(pool: StoragePool, name: str) -> None:
    """Do what is left, and check that it is all that was to be done."""

    def is_done() -> bool:
        try:  # the server may not have noticed yet that a killed process has gone
            WORKS[name](pool)
        except Conflict:
            return False
        return True

    eventually(is_done)
    frames, rows = frame_count(pool), framed_rows(pool)
    assert oddities(pool.engine.url.render_as_string(False).replace("+psycopg", "")) == {}
    if name in {"packing", "closing"}:
        assert frames == len(TRACES)
    elif name == "to frames":
        assert rows == 2 * (3 * len(TRACES) + 2 * 4)
    else:
        assert (frames, rows) == (0, 0)
