from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from observatory_storage import (
    CopyWriter,
    LlmSpan,
    LogRecord,
    StoragePool,
    TraceSpan,
    TraceWriter,
    ingest_logs,
)
from observatory_storage.commits import Change, Commit
from observatory_storage.tables import SPANS
from tests.pricing.spans_of_calls import price_model

START = datetime(2026, 1, 31, 12, tzinfo=UTC)
USAGE = ("span_id", "total_tokens", "total_cost_usd")


class Listener:
    """Keeps what it hears, and what another session saw of the spans at that moment."""

    def __init__(self, pool: StoragePool) -> None:
        self.pool = pool
        self.heard: list[Commit] = []
        self.visible: list[int] = []

    def on_commit(self, commit: Commit) -> None:
        self.heard.append(commit)
        with self.pool.engine.connect() as connection:
            count = sa.select(sa.func.count()).select_from(TraceSpan)
            self.visible.append(connection.scalar(count) or 0)

    @property
    def rows(self) -> list[str]:
        return [row.table for commit in self.heard for row in commit.rows]


@pytest.fixture
def listener(pool: StoragePool) -> Iterator[Listener]:
    listener = Listener(pool)
    pool.commits.add(listener)
    yield listener
    pool.commits.remove(listener)


def span(number: int, **columns: Any) -> dict[str, Any]:
    return {
        "trace_id": f"{number:032x}",
        "span_id": f"{number:016x}",
        "name": "chat",
        "start_time": START,
        "service_name": "shop",
        **columns,
    }


def test_buffered_writer_tells_of_spans_once_they_can_be_read(
    pool: StoragePool, listener: Listener
) -> None:
    with TraceWriter(pool) as writer:
        writer.write_spans([span(1, events=[{"name": "retry", "timestamp": START}]), span(2)])
        assert not listener.heard
    assert listener.rows == ["trace_spans", "trace_spans"]
    assert len(listener.heard[0].rows[0].events or ()) == 1
    assert listener.visible == [2]


@pytest.mark.parametrize("count", [1, 2_000])
def test_copy_writer_tells_of_all_rows(pool: StoragePool, listener: Listener, count: int) -> None:
    CopyWriter(pool).write_spans([span(number) for number in range(1, count + 1)])
    assert listener.rows == ["trace_spans"] * count
    assert listener.visible == [count]


def test_rows_that_met_a_conflict_are_told_once(pool: StoragePool, listener: Listener) -> None:
    spans = [span(number) for number in range(1, 2_001)]
    CopyWriter(pool).write_spans(spans[1_500:])
    CopyWriter(pool).write_spans(spans)
    assert [len(commit.rows) for commit in listener.heard] == [500, 2_000]


@pytest.mark.parametrize("count", [1, 4, 2_000])
def test_spans_are_told_with_the_costs_and_usage_they_are_written_with(
    pool: StoragePool, listener: Listener, count: int
) -> None:
    price_model(pool, 1)
    agent = span(count + 1, span_id="a" * 16, trace_id="1" * 32, total_tokens=10 * count)
    calls = [
        span(number, trace_id="1" * 32, parent_span_id="a" * 16, prompt_tokens=10, model="m")
        for number in range(1, count + 1)
    ]
    for _ in range(2):  # the second time, the spans meet a conflict
        CopyWriter(pool).write_spans([*calls, agent])
    with pool.unit_of_work() as work:
        spans = work.traces.get_spans("1" * 32)
        stored = sorted((one.span_id, one.total_tokens, one.total_cost_usd) for one in spans)
    for commit in listener.heard:
        told = [[row.values[SPANS.position[name]] for name in USAGE] for row in commit.rows]
        assert sorted(map(tuple, told)) == stored
    assert {cost for _, tokens, cost in stored if tokens} == {Decimal("0.00001")}


def test_ingestion_tells_of_log_records(pool: StoragePool, listener: Listener) -> None:
    record = {"timeUnixNano": "1769860800000000000", "body": {"stringValue": "hello"}}
    ingest_logs(pool, {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]})
    assert listener.rows == ["logs"]


def test_unit_of_work_tells_when_it_commits(pool: StoragePool, listener: Listener) -> None:
    with pool.unit_of_work() as uow:
        CopyWriter(uow).write_spans([span(1)])
        CopyWriter(uow).write_spans([span(2)])
        assert not listener.heard
        uow.commit()
        assert listener.rows == ["trace_spans", "trace_spans"]
        uow.commit()
    assert len(listener.heard) == 2
    assert listener.visible == [2, 2]


def test_what_is_rolled_back_is_not_told(pool: StoragePool, listener: Listener) -> None:
    with pool.unit_of_work() as uow:
        CopyWriter(uow).write_spans([span(1)])
        uow.rollback()
        CopyWriter(uow).write_spans([span(2)])
        with uow.session.begin_nested() as savepoint:
            CopyWriter(uow).write_spans([span(3)])
            savepoint.rollback()
        with uow.session.begin_nested():
            CopyWriter(uow).write_spans([span(4)])
        uow.commit()
    with pool.unit_of_work() as uow:
        CopyWriter(uow).write_spans([span(5)])
    ids = [row.trace_text for commit in listener.heard for row in commit.rows]
    assert ids == [f"{2:032x}", f"{4:032x}"]


def test_deletions_are_told_when_they_are_committed(pool: StoragePool, listener: Listener) -> None:
    with TraceWriter(pool) as writer:
        written = writer.write_span_from_llm(LlmSpan(model="m", user_id="ada", start_time=START))
    listener.heard.clear()
    with pool.unit_of_work() as uow:
        uow.traces.delete(written.trace_id)
        uow.traces.delete_user("ada")
        assert not listener.heard
        uow.commit()
    changes = [[change.table for change in commit.changes] for commit in listener.heard]
    assert changes == [["trace_spans", "logs"], ["trace_spans", "logs", "metric_data_points"]]
    first = listener.heard[0].changes[0]
    assert (first.first, first.last) == (START, START)


def test_changed_entities_are_told_with_their_times_alone(
    pool: StoragePool, listener: Listener
) -> None:
    CopyWriter(pool).write_spans([span(1)])
    listener.heard.clear()
    with pool.unit_of_work() as uow:
        uow.traces.get_spans(f"{1:032x}")[0].name = "changed"
        uow.commit()
    changes = [change for commit in listener.heard for change in commit.changes]
    assert changes == [Change(SPANS.name, START, START)]


def test_statements_are_told_unless_they_are_rolled_back(
    pool: StoragePool, listener: Listener
) -> None:
    CopyWriter(pool).write_spans([span(1)])
    listener.heard.clear()
    with pool.unit_of_work() as uow:
        with uow.session.begin_nested() as savepoint:
            uow.session.execute(sa.delete(LogRecord))
            savepoint.rollback()
        uow.session.execute(sa.select(TraceSpan.name).cte().select())
        uow.session.execute(sa.update(TraceSpan).values(name="changed"))
        uow.commit()
    changes = [change for commit in listener.heard for change in commit.changes]
    assert changes == [Change(SPANS.name)]


def test_error_of_a_listener_is_logged_and_costs_no_row(
    pool: StoragePool, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        def on_commit(self, commit: Commit) -> None:
            raise ZeroDivisionError

    pool.commits.add(Broken())
    with caplog.at_level(logging.ERROR), TraceWriter(pool) as writer:
        writer.write_span(span(1))
        assert writer.flush().committed == 1
    assert "a listener failed after a commit" in caplog.text
