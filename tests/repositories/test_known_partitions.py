"""What is known of partitions decides how a list is read, not what it has."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise

import pytest

from observatory_storage import CopyWriter, SessionFilters, StoragePool, TraceFilters, UnitOfWork
from observatory_storage.repositories.reading import page_rates, partition_slices
from tests.repositories.partition_states import MOMENTS, TODAY, last_starts, refresh
from tests.repositories.samples import DAY, SECOND, a_span, newest_traces, span_key, statements


@pytest.mark.usefixtures("_slices")
def test_partitions_that_appear_meanwhile_are_read(pool: StoragePool) -> None:
    writer = CopyWriter(pool)
    writer.write_spans([a_span(n, n, TODAY - n * DAY, user_id="ann") for n in range(1, 7)])
    with pool.unit_of_work() as uow:
        assert len(uow.traces.list(user_id="ann")) == 6
        days = (-40, -20, 3, 20)
        writer.write_spans([a_span(100 + n, n + 100, TODAY + n * DAY, user_id="ann") for n in days])
        traces, spans = uow.traces.list(user_id="ann"), uow.traces.list_spans(user_id="ann")
        for starts in ([t.start_time for t in traces], [s.start_time for s in spans]):
            assert len(starts) == 10
            assert all(one > other for one, other in pairwise(starts))


def test_a_page_does_not_depend_on_the_pages_before(pool: StoragePool) -> None:
    """Those of users with many, few and no traces, each asked for after each other one."""
    rng = random.Random(5)
    rows = []
    for trace in range(1, 241):
        is_dense = trace % 6 > 0
        start = TODAY - rng.randrange(32) * DAY + rng.choice(MOMENTS)
        for number in range(rng.randrange(1, 4) if is_dense else 6):
            later = timedelta(0) if is_dense else rng.randrange(4) * number * DAY
            rows.append(
                a_span(
                    trace,
                    trace * 10 + number,
                    start + later,
                    end_time=start + later + SECOND,
                    parent_span_id=span_key(trace * 10) if number else None,
                    user_id="dense" if is_dense else "sparse",
                    session_id=f"s{trace // 2}" if is_dense else f"long{trace % 18}",
                )
            )
    CopyWriter(pool).write_spans(rows)
    refresh(pool)
    users: list[str | None] = ["dense", "sparse", "nobody"]
    with pool.unit_of_work() as uow:
        for limit, other in ((20, 60), (60, 20)):
            for user in users:
                filters = TraceFilters(user_id=user, limit=limit)
                expected = newest_traces(rows, filters)[:limit]
                for before in users:
                    uow.traces.list(user_id=before, limit=other)
                    assert [t.trace_id for t in uow.traces.list(filters)] == expected
            for given in (None, *users):
                wanted = SessionFilters(user_id=given, limit=limit)
                page_rates.forget_rates(pool.engine)
                alone = uow.traces.list_sessions(wanted)
                assert [(one.last_start_time, one.session_id) for one in alone] == last_starts(
                    rows, wanted
                )[:limit]
                for before in (None, *users):
                    uow.traces.list_sessions(user_id=before, limit=other)
                    assert uow.traces.list_sessions(wanted) == alone


def test_the_catalog_is_asked_once_a_minute(pool: StoragePool) -> None:
    def asked(ask: Callable[[UnitOfWork], object]) -> int:
        with pool.unit_of_work() as uow, statements(pool.engine, of_catalog=True) as seen:
            ask(uow)
        return sum("pg_inherits" in statement for statement in seen)

    assert asked(lambda uow: uow.traces.list_spans()) == 1
    assert asked(lambda uow: uow.traces.list_spans(user_id="ann")) == 0
    partition_slices.forget_partitions(pool.engine)
    assert asked(lambda uow: uow.traces.list_spans()) == 1
