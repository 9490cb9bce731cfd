"""Whoever writes or changes spans marks their time, so that the next refresh counts them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
import sqlalchemy as sa

from observatory_storage import CopyWriter, LogWriter, TraceSpan, TraceWriter, ingest_traces
from observatory_storage.changed_spans import ranges_of
from observatory_storage.pool import StoragePool
from tests.lifecycle.rolled import DAY, HOUR, LATER, a_span, check_answers, refresh, tokens, write
from tests.writers.helpers import Row, contents, trace_id


def marks(pool: StoragePool) -> list[str]:
    return contents(pool)["span_changes"]


def test_nothing_is_marked_before_rollups_are_kept(pool: StoragePool) -> None:
    write(pool, a_span(1))
    assert marks(pool) == []
    assert tokens(pool) == (10, "raw")
    refresh(pool, LATER)
    assert marks(pool) == []
    assert tokens(pool) == (10, "rollup")
    assert tokens(pool, source="raw") == (10, "raw")


def by_trace_writer(pool: StoragePool, rows: list[Row]) -> None:
    with TraceWriter(pool) as writer:
        writer.write_spans(rows)


def by_session(pool: StoragePool, rows: list[Row]) -> None:
    with pool.unit_of_work() as uow:
        CopyWriter(uow).write_spans(rows)
        uow.commit()


def by_otlp(pool: StoragePool, rows: list[Row]) -> None:
    spans = [
        {
            "traceId": row["trace_id"],
            "spanId": row["span_id"],
            "name": row["name"],
            "startTimeUnixNano": str(int(row["start_time"].timestamp()) * 10**9),
            "endTimeUnixNano": str(int(row["start_time"].timestamp() + 1) * 10**9),
            "attributes": [
                {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "10"}},
            ],
        }
        for row in rows
    ]
    request = {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}
    assert ingest_traces(pool, request).accepted == len(rows)


def one_by_one(pool: StoragePool, rows: list[Row]) -> None:
    for row in rows:
        write(pool, row)


WAYS: dict[str, Callable[[StoragePool, list[Row]], object]] = {
    "trace writer": by_trace_writer,
    "stream": lambda pool, rows: write(pool, *rows),
    "one by one": one_by_one,
    "insert": lambda pool, rows: CopyWriter(pool, method="insert").write_spans(rows),
    "unit of work": by_session,
    "OTLP": by_otlp,
}


@pytest.mark.parametrize("way", WAYS)
def test_whoever_writes_spans_marks_their_time(pool: StoragePool, way: str) -> None:
    write(pool, a_span(500))
    refresh(pool, LATER)
    rows = [a_span(n, DAY + timedelta(seconds=n)) for n in range(1, 120 if way == "stream" else 9)]
    WAYS[way](pool, rows)
    assert marks(pool)
    assert tokens(pool) == (10 * len(rows) + 10, "raw")  # the whole day is marked, and short
    refresh(pool, LATER)
    assert tokens(pool) == (10 * len(rows) + 10, "rollup")
    WAYS[way](pool, rows)  # again, which changes nothing
    assert marks(pool) == []


def test_changes_of_stored_spans_are_marked(pool: StoragePool) -> None:
    call: Row = {"response_id": "r", "prompt_tokens": 10, "total_tokens": 10}
    write(pool, a_span(1, **call))
    write(pool, a_span(2, DAY + HOUR, **call))
    refresh(pool, LATER)
    assert tokens(pool) == (20, "rollup")
    assert pool.settle_usage().changed_traces == 1
    refresh(pool, LATER)
    assert tokens(pool) == (10, "rollup")
    with pool.engine.begin() as connection:
        connection.execute(sa.update(TraceSpan).values(attributes={"gen_ai.request.model": "o3"}))
    assert pool.refresh_facts().changed_spans == 2
    refresh(pool, LATER)
    with pool.unit_of_work() as uow:
        assert {row.model for row in uow.metrics.get_cost_summary()} == {"o3"}
        check_answers(uow, None, None)


def test_a_log_record_that_fills_a_span_marks_it(pool: StoragePool) -> None:
    write(pool, a_span(1, user_id=None, session_id=None, scope_name="gcp.vertex.agent"))
    refresh(pool, LATER)
    with LogWriter(pool) as writer:
        writer.write_log(
            {
                "timestamp": DAY,
                "service_name": "shop",
                "trace_id": trace_id(1),
                "span_id": f"{1:016x}",
                "event_name": "gen_ai.client.inference.operation.details",
                "attributes": {"user.id": "ada"},
            }
        )
    with pool.unit_of_work() as uow:
        assert [row.user_id for row in uow.metrics.get_user_usage()] == ["ada"]
    refresh(pool, LATER)
    with pool.unit_of_work() as uow:
        assert [row.source for row in uow.metrics.get_user_usage()] == ["rollup"]


def test_spans_of_an_open_transaction_are_counted_after_its_commit(pool: StoragePool) -> None:
    write(pool, a_span(1))
    refresh(pool, LATER)
    with pool.unit_of_work() as uow:
        CopyWriter(uow).write_spans([a_span(2)])
        refresh(pool, LATER)
        assert tokens(pool) == (10, "rollup")
        uow.commit()
    assert tokens(pool) == (20, "raw")
    refresh(pool, LATER)
    assert tokens(pool) == (20, "rollup")


def test_marks_are_few_and_cover_their_spans() -> None:
    def ranges(*minutes: float) -> list[tuple[float, float]]:
        found = ranges_of([DAY + timedelta(minutes=each) for each in minutes])
        return [tuple((each - DAY) / timedelta(minutes=1) for each in one) for one in found]  # type: ignore[misc]

    assert ranges(3, 1, 59) == [(1, 59)]
    assert ranges(0, 90, 92, 400) == [(0, 0), (90, 92), (400, 400)]
    many = [each * 90 for each in range(1000)]
    assert len(ranges(*many)) <= 64
    assert all(any(a <= each <= b for a, b in ranges(*many)) for each in many)
