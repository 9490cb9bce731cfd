"""What a buffered writer does with each row: taken, refused, redacted, repaired, completed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from observatory_storage.errors import BatchError, StorageError, ValidationError
from observatory_storage.llm import LlmSpan
from observatory_storage.models import (
    LogRecord,
    Trace,
    TraceEvent,
    TraceSpan,
)
from observatory_storage.pool import StoragePool
from observatory_storage.writers import (
    FlushResult,
    LogWriter,
    TraceWriter,
    WriterConfig,
    delivery,
)
from tests.writers.helpers import (
    START,
    a_log,
    a_span,
    count,
    eventually,
    fetch,
    trace_id,
)
from tests.writers.trace_model import check_traces

# What is buffered stays so until a test wants it flushed.
PATIENT = WriterConfig(flush_interval_secs=None)


def bodies(pool: StoragePool) -> list[Any]:
    return sorted(row["body"] for row in fetch(pool, LogRecord))


def test_write_spans_takes_the_good_rows(pool: StoragePool) -> None:
    with TraceWriter(pool, PATIENT) as writer:
        with pytest.raises(BatchError) as caught:
            writer.write_spans(
                [
                    a_span(1, 1),
                    a_span(1, 2, status="wrong"),
                    a_span(1, 3, no_such_column=1),
                    a_span(1, 4),
                    a_span(1, 5, end_time=START - timedelta(days=1)),
                ]
            )
        assert [one.index for one in caught.value.rejected] == [1, 2, 4]
        errors = [one.error for one in caught.value.rejected]
        assert all(isinstance(error, ValidationError) for error in errors)
        assert [getattr(e, "field", None) for e in errors] == [
            "status",
            "no_such_column",
            "end_time",
        ]
        assert caught.value.rejected[0].row["status"] == "wrong"
        assert writer.flush().committed == 2


def test_redaction_changes_rows_or_keeps_them_back(pool: StoragePool) -> None:
    seen: list[tuple[object, int]] = []

    def redact(row: dict[str, Any]) -> dict[str, Any] | None:
        seen.append((row["body"], writer.buffer_stats().buffered))
        return None if row["body"] == "secret" else {**row, "body": f"redacted {row['body']}"}

    writer = LogWriter(pool, WriterConfig(redact=redact, flush_interval_secs=None))
    with writer:
        record = LogRecord(**a_log(body="orm"))
        assert writer.write_log(record) == record.id
        writer.write_log(a_log(1, body="secret"))
        writer.write_log(a_log(2, body="mapping"))
        assert record.body == "orm"
        assert writer.flush().committed == 2
        assert writer.write_stats().redacted == 1
    assert bodies(pool) == ["redacted mapping", "redacted orm"]
    # It runs before the row is buffered.
    assert seen == [("orm", 0), ("secret", 1), ("mapping", 1)]


def test_a_redaction_that_fails_lets_nothing_through(pool: StoragePool) -> None:
    def redact(row: dict[str, Any]) -> dict[str, Any]:
        raise KeyError("user")

    with LogWriter(pool, WriterConfig(redact=redact)) as writer, pytest.raises(KeyError):
        writer.write_log(a_log())
    assert count(pool, "logs") == 0


def test_redaction_sees_events_and_calls_of_models(pool: StoragePool) -> None:
    def redact(row: dict[str, Any]) -> dict[str, Any]:
        return {**row, "name": "redacted", "attributes": {}}

    with TraceWriter(pool, WriterConfig(redact=redact)) as writer:
        span = writer.write_span_from_llm(LlmSpan(model="gpt", prompt="secret", trace_id="t"))
        writer.write_event(
            {"trace_id": "t", "span_id": span.span_id, "name": "e", "timestamp": START}
        )
    assert [row["attributes"] for row in fetch(pool, TraceSpan)] == [{}]
    assert [row["name"] for row in fetch(pool, TraceEvent)] == ["redacted"]
    assert [row["trace_id"] for row in fetch(pool, Trace)] == ["t"]


def test_redaction_of_a_trace_id_leaves_no_trace_of_it(pool: StoragePool) -> None:
    with TraceWriter(
        pool, WriterConfig(redact=lambda row: {**row, "trace_id": "anonymous"})
    ) as writer:
        writer.write_span_from_llm(LlmSpan(model="gpt", trace_id="user@example.org"))
    assert [row["trace_id"] for row in fetch(pool, Trace)] == ["anonymous"]
    check_traces(pool)


@contextmanager
def refusing(pool: StoragePool, table: str, condition: str) -> Iterator[None]:
    """The database refuses rows of the table for their data."""
    with pool.engine.begin() as connection:
        connection.exec_driver_sql(
            f"ALTER TABLE {table} ADD CONSTRAINT refused CHECK ({condition})"
        )
    yield
    with pool.engine.begin() as connection:
        connection.exec_driver_sql(f"ALTER TABLE {table} DROP CONSTRAINT refused")


def test_rows_that_the_database_refuses_go_to_on_rejected(pool: StoragePool) -> None:
    refused: list[tuple[dict[str, Any], StorageError]] = []
    config = WriterConfig(
        flush_interval_secs=None, on_rejected=lambda row, error: refused.append((row, error))
    )
    with refusing(pool, "logs", "body NOT LIKE 'bad%%'"), LogWriter(pool, config) as writer:
        for n in range(40):
            writer.write_log(a_log(n, body=f"bad {n}" if n % 13 == 5 else f"good {n}"))
        # They have been handed over when flush returns.
        assert writer.flush() == FlushResult(committed=37)
        assert sorted(row["body"] for row, _ in refused) == ["bad 18", "bad 31", "bad 5"]
        assert all(isinstance(error, ValidationError) for _, error in refused)
        assert {getattr(error, "field", None) for _, error in refused} == {"refused"}
        assert writer.write_stats().rejected == 3
        assert writer.buffer_stats().buffered == 0
    assert len(bodies(pool)) == 37


def test_a_handler_that_fails_costs_no_row(pool: StoragePool) -> None:
    def on_rejected(row: dict[str, Any], error: StorageError) -> None:
        raise RuntimeError("in the application's code")

    config = WriterConfig(flush_interval_secs=None, on_rejected=on_rejected)
    with refusing(pool, "logs", "body <> 'bad'"), LogWriter(pool, config) as writer:
        writer.write_logs([a_log(0, body="good"), a_log(1, body="bad"), a_log(2, body="good")])
        assert writer.flush().committed == 2


def test_without_a_handler_flush_lists_the_refused_rows_after_the_good_are_committed(
    pool: StoragePool,
) -> None:
    with refusing(pool, "trace_spans", "name <> 'bad'"):
        writer = TraceWriter(pool, PATIENT)
        events = [{"name": "e", "timestamp": START}]
        writer.write_spans(
            a_span(n % 3 + 1, n, name="bad" if n in {4, 20} else "good", events=events)
            for n in range(1, 30)
        )
        with pytest.raises(BatchError) as caught:
            writer.flush()
        rejected = caught.value.rejected
        assert [one.row["span_id"] for one in rejected] == [f"{4:016x}", f"{20:016x}"]
        assert [len(one.row["events"]) for one in rejected] == [1, 1]
        assert writer.close() == FlushResult(committed=27)
    assert count(pool, "trace_spans") == 27
    assert count(pool, "trace_events") == 27
    check_traces(pool)


def test_refused_rows_that_nobody_asks_for_do_not_fill_the_memory(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_MOST_LISTED", 5)
    with refusing(pool, "logs", "body <> 'bad'"), LogWriter(pool, PATIENT) as writer:
        writer.write_logs(a_log(n, body="bad" if n % 3 else "good") for n in range(12))
        with pytest.raises(BatchError) as caught:
            writer.flush()
        assert len(caught.value.rejected) == 5
        assert writer.write_stats().rejected == 8
        assert writer.flush() == FlushResult(committed=4)


def test_rows_refused_in_the_background_are_told_by_the_next_flush(pool: StoragePool) -> None:
    config = WriterConfig(batch_size=2, flush_interval_secs=None)
    with refusing(pool, "logs", "body <> 'bad'"), LogWriter(pool, config) as writer:
        writer.write_logs([a_log(0, body="bad"), a_log(1)])
        eventually(lambda: writer.write_stats().rejected == 1)
        with pytest.raises(BatchError):
            writer.flush()
        assert writer.flush() == FlushResult(committed=1)


def test_later_changes_by_the_caller_do_not_change_written_rows(
    pool: StoragePool,
) -> None:
    attributes: dict[str, Any] = {"list": [1], "nested": {"a": 1}}
    event: dict[str, Any] = {"name": "e", "timestamp": START, "attributes": {"n": 1}}
    span = a_span(attributes=attributes, events=[event])
    with TraceWriter(pool, PATIENT) as writer:
        writer.write_span(span)
        attributes["list"].append(2)
        attributes["nested"]["a"] = 2
        event["attributes"]["n"] = 2
        span["events"].append(event)
        span["name"] = "changed"
    (stored,) = fetch(pool, TraceSpan)
    assert stored["name"] == "operation"
    assert stored["attributes"] == {"list": [1], "nested": {"a": 1}}
    assert [row["attributes"] for row in fetch(pool, TraceEvent)] == [{"n": 1}]


def test_events_find_their_place_beside_a_buffered_span(pool: StoragePool) -> None:
    event = {"trace_id": trace_id(1), "span_id": f"{1:016x}", "name": "e", "timestamp": START}
    with TraceWriter(pool, PATIENT) as writer:
        with pytest.raises(ValidationError, match="span_start_time"):
            writer.write_event(event)
        writer.write_span(a_span(1, 1, start_ns=5, events=[{**named("first"), "position": 4}]))
        writer.write_span(a_span(1, 2))
        with ThreadPoolExecutor(4) as executor:
            for future in [executor.submit(writer.write_event, event) for _ in range(40)]:
                future.result()
        with pytest.raises(ValidationError, match="span_id"):
            writer.write_event({**event, "span_id": "nonsense"})
    found = fetch(pool, TraceEvent)
    assert [row["position"] for row in found] == list(range(4, 45))
    assert {row["span_start_ns"] for row in found} == {5}


def named(name: str) -> dict[str, Any]:
    return {"name": name, "timestamp": START}


def test_the_stats_count_what_was_repaired(pool: StoragePool) -> None:
    with LogWriter(pool, PATIENT) as writer:
        writer.write_log(a_log(0, attributes={"nan": float("nan"), "nul": "\x00"}))
        writer.write_log(a_log(1, body="a\x00b"))
        assert writer.flush().committed == 2
        assert writer.write_stats().repaired == 3
