"""A refresh reads its range part by part: bounded, interrupted, and beside writers."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from observatory_storage import (
    CopyWriter,
    RefreshedFacts,
    StorageConfig,
    StoragePool,
    ValidationError,
)
from observatory_storage.models import Trace, TraceSpan
from observatory_storage.storing import facts_refresh
from observatory_storage.storing.trace_upsert import locked_traces
from tests.storing.refreshing import SECOND, as_today, call, forget_facts, inside
from tests.writers.helpers import START, fetch, trace_id
from tests.writers.trace_model import check_traces


def test_only_spans_of_the_range_are_read(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([call(n, n, 1, 1) for n in range(1, 7)])
    forget_facts(pool)
    assert pool.refresh_facts(START + 2 * SECOND, START + 4 * SECOND) == RefreshedFacts(2, 2)
    models = [row["model"] for row in fetch(pool, TraceSpan, "start_time")]
    assert models == [None, "m", "m", None, None, None]
    assert pool.refresh_facts(START, START) == RefreshedFacts()


def test_a_bounded_refresh_is_continued(pool: StoragePool) -> None:
    spans = [call(n, n, 1, 1) for n in range(1, 6)]
    # More spans of one start than the bound.
    spans += [{**call(9, n, 1, 1), "start_time": START} for n in range(11, 15)]
    CopyWriter(pool).write_spans(spans)
    today = as_today(pool)
    forget_facts(pool)
    first = pool.refresh_facts(max_spans=2)
    assert first == RefreshedFacts(4, 4, START + timedelta(microseconds=1))
    second = pool.refresh_facts(first.next_start, max_spans=2)
    assert second == RefreshedFacts(2, 2, START + 2 * SECOND + timedelta(microseconds=1))
    assert pool.refresh_facts(second.next_start, max_spans=4) == RefreshedFacts(3, 3)
    assert as_today(pool) == today


def test_an_interrupted_refresh_is_continued(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    CopyWriter(pool).write_spans([call(n, n, 1, 1) for n in range(1, 8)])
    today = as_today(pool)
    forget_facts(pool)
    monkeypatch.setattr(facts_refresh, "_SPANS_AT_A_TIME", 2)
    steps: list[RefreshedFacts] = []

    def interrupt(so_far: RefreshedFacts) -> None:
        steps.append(so_far)
        if len(steps) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pool.refresh_facts(progress=interrupt)
    assert steps == [
        RefreshedFacts(2, 2, START + 2 * SECOND),
        RefreshedFacts(4, 4, START + 4 * SECOND),
    ]
    assert pool.refresh_facts(steps[-1].next_start) == RefreshedFacts(4, 3)
    assert as_today(pool) == today


def test_it_runs_beside_writers_and_beside_itself(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans = []
    for trace in range(1, 25):
        named = {"gen_ai.response.id": f"r{trace // 2}"}
        calls = [inside(call(trace, n, n, 1, **named), 1) for n in (2, 3)]
        spans += [call(trace, 1, 5, 2), *calls, inside(call(trace, 4, 9, 9), 3)]
    CopyWriter(pool).write_spans(spans)
    today = as_today(pool)
    monkeypatch.setattr(facts_refresh, "_SPANS_AT_A_TIME", 10)
    failures: list[BaseException] = []

    def repeat(action: Any) -> None:
        try:
            for _ in range(6):
                action()
        except BaseException as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    def write() -> None:
        for start in range(0, len(spans), 16):
            # Another name makes the stored version differ, and its last one is that of today.
            part = spans[start : start + 16]
            CopyWriter(pool).write_spans([{**span, "name": "before"} for span in part])
            CopyWriter(pool).write_spans(part)

    def forget_and_refresh() -> None:
        with pool.engine.begin() as connection:
            locked_traces(connection, connection.scalars(sa.select(Trace.id)).all())
            connection.execute(sa.update(TraceSpan).values(model=None, user_id=None))
        pool.refresh_facts()

    actions = (write, forget_and_refresh, pool.refresh_facts, pool.settle_usage)
    threads = [threading.Thread(target=repeat, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    pool.refresh_facts()
    assert as_today(pool) == today


def test_a_span_that_is_deleted_meanwhile_is_skipped(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    CopyWriter(pool).write_spans([call(1, 1, 1, 1), call(2, 2, 1, 1)])
    forget_facts(pool)
    refresh = facts_refresh._refresh

    def delete_first(*arguments: Any) -> int:
        with pool.unit_of_work() as uow:
            uow.traces.delete(trace_id(1))
            uow.commit()
        return refresh(*arguments)

    monkeypatch.setattr(facts_refresh, "_refresh", delete_first)
    assert pool.refresh_facts() == RefreshedFacts(2, 1)
    check_traces(pool)
    assert [row["total_tokens"] for row in fetch(pool, Trace)] == [2]


def test_spans_at_both_ends_of_time_are_read(pool: StoragePool) -> None:
    times = [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
    CopyWriter(pool).write_spans(
        [
            {**call(n, n, 1, 1), "start_time": time, "end_time": None}
            for n, time in enumerate(times, 1)
        ]
    )
    forget_facts(pool)
    first = pool.refresh_facts(max_spans=1)
    assert (first.changed_spans, first.spans) == (1, 1)
    assert pool.refresh_facts(first.next_start, max_spans=1) == RefreshedFacts(1, 1)


def test_wrong_arguments_are_named(pool: StoragePool) -> None:
    naive: Any = datetime(2026, 1, 1)  # noqa: DTZ001 - is refused
    text: Any = "2026"
    for field, arguments in (
        ("start", {"start": naive}),
        ("end", {"end": text}),
        ("end", {"start": START, "end": START - SECOND}),
        ("max_spans", {"max_spans": 0}),
        ("max_spans", {"max_spans": True}),
    ):
        with pytest.raises(ValidationError) as caught:
            pool.refresh_facts(**arguments)
        assert caught.value.field == field


def test_spans_of_another_schema_are_refreshed(pool: StoragePool) -> None:
    postgres = pool.config.postgres.model_copy(update={"schema_name": "telemetry"})
    config: StorageConfig = pool.config.model_copy(update={"postgres": postgres})
    with StoragePool(config) as other:
        other.run_migrations()
        CopyWriter(other).write_spans([call(1, 1, 1, 1)])
        with other.engine.begin() as connection:
            connection.execute(sa.update(TraceSpan).values(model=None))
        assert other.refresh_facts() == RefreshedFacts(1, 1)
    assert pool.refresh_facts() == RefreshedFacts()
