"""An erasure and writers of the same traces wait for each other."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from observatory_storage import Conflict, CopyWriter, StoragePool, UnitOfWork
from observatory_storage.models import TraceSpan
from tests import citus
from tests.repositories.samples import (
    DAY,
    SECOND,
    START,
    Row,
    a_span,
    an_event,
    span_key,
    trace_key,
)
from tests.writers.helpers import contents, eventually, fetch, quick_pool
from tests.writers.trace_model import check_traces

WAITING = (
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND wait_event_type = 'Lock'"
)


def _is_anyone_waiting(pool: StoragePool) -> bool:
    query = "SELECT count(*) FROM citus_lock_waits" if citus.URL else WAITING
    with pool.engine.connect() as connection:
        return bool(connection.scalar(sa.text(query)))


ERASURES = pytest.mark.parametrize(
    "erase",
    [
        lambda uow: uow.traces.delete_user("ann"),
        lambda uow: uow.traces.delete_session("s"),
        lambda uow: uow.traces.delete(trace_key(1)),
    ],
    ids=["user", "session", "trace"],
)


@ERASURES
def test_a_writer_waits_for_the_erasure_and_begins_the_trace_anew(
    pool: StoragePool, erase: Callable[[UnitOfWork], Any]
) -> None:
    def span(number: int) -> Row:
        return a_span(1, number, START + number * DAY, user_id="ann", session_id="s")

    CopyWriter(pool).write_spans([span(1), span(2)])
    with ThreadPoolExecutor(2) as executor:
        with pool.unit_of_work() as uow:
            assert erase(uow).spans == 2
            new = executor.submit(CopyWriter(pool).write_spans, [span(3)])
            again = executor.submit(CopyWriter(pool).write_spans, [span(2), span(4)])
            eventually(lambda: _is_anyone_waiting(pool))
            uow.commit()
        assert (new.result(), again.result()) == (1, 2)
    assert check_traces(pool) == 1
    with pool.unit_of_work() as uow:
        assert [s.span_id for s in uow.traces.get_spans(trace_key(1))] == [
            span_key(n) for n in (2, 3, 4)
        ]


@ERASURES
def test_an_erasure_waits_for_the_writer_and_takes_what_it_wrote(
    pool: StoragePool, erase: Callable[[UnitOfWork], Any]
) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1, user_id="ann", session_id="s")])

    def run() -> Any:
        with pool.unit_of_work() as uow:
            deleted = erase(uow)
            uow.commit()
        return deleted

    with ThreadPoolExecutor(1) as executor:
        with pool.unit_of_work() as uow:
            # Neither is the user's, and both lie outside of what was known of the trace.
            CopyWriter(uow).write_spans([a_span(1, 50 + n, START + n * DAY) for n in (-40, 40)])
            erasing = executor.submit(run)
            eventually(lambda: _is_anyone_waiting(pool))
            uow.commit()
        assert erasing.result().spans == 3
    assert not any(contents(pool).values())


def test_erasing_while_spans_are_sent_again(database_url: str) -> None:
    """Traces have spans of several users and sessions; nobody waits in a circle."""
    done = threading.Event()

    def batch(source: random.Random) -> list[Row]:
        return [
            a_span(
                trace := source.randint(1, 8),
                number := source.randint(1, 6),
                START + trace * SECOND + number % 2 * DAY,
                user_id=source.choice([None, "ann", "bob"]),
                session_id=source.choice([None, "s", "t"]),
                status=source.choice(["ok", "error"]),
                end_time=START + 9 * DAY + timedelta(milliseconds=source.randint(1, 99)),
                events=source.choice([None, [], [an_event(), an_event()]]),
            )
            for _ in range(source.randint(1, 20))
        ]

    def write(seed: int) -> None:
        source = random.Random(seed)
        for _ in range(15):
            CopyWriter(pool).write_spans(batch(source))

    def erase(seed: int) -> int:
        source, erased = random.Random(seed), 0
        while not done.is_set():
            # A deadlock, which a cluster may have. On one server, none is counted at the end.
            with suppress(Conflict), pool.unit_of_work() as uow:
                if source.random() < 0.5:
                    deleted = uow.traces.delete_user(source.choice(["ann", "bob"])).spans
                else:
                    deleted = uow.traces.delete_session(source.choice(["s", "t"])).spans
                uow.commit()
                erased += deleted
        return erased

    with quick_pool(database_url) as pool, ThreadPoolExecutor(4) as executor:
        for table in ("trace_spans", "trace_events"):
            pool.partitions.ensure(table, [START, START + DAY])
        erasing = [executor.submit(erase, seed) for seed in (1, 2)]
        writing = [executor.submit(write, seed) for seed in (3, 4)]
        try:
            for each in writing:
                each.result()
        finally:
            done.set()
        assert sum(each.result() for each in erasing) > 0
        check_traces(pool)
        with pool.unit_of_work() as uow:
            for user in ("ann", "bob"):
                uow.traces.delete_user(user)
            for session in ("s", "t"):
                uow.traces.delete_session(session)
            uow.commit()
        check_traces(pool)
        for row in fetch(pool, TraceSpan):
            assert row["user_id"] is row["session_id"] is None
    with psycopg.connect(database_url) as connection:
        (deadlocks,) = connection.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone() or (0,)
    assert deadlocks == 0
