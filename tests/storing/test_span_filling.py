"""The user and the session that only log records tell fill the columns of their spans."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest

from observatory_storage import LogWriter, StoragePool, TraceFilters, TraceWriter, ingest_logs
from observatory_storage.llm import use_own_aliases
from observatory_storage.models import LogRecord, TraceSpan
from observatory_storage.rows import PART
from observatory_storage.writers import CopyWriter
from tests.otlp.samples import logs_request
from tests.otlp.stored import clear
from tests.writers.helpers import START, Row, a_log, a_span, contents, fetch, span_id, trace_id

DETAILS = "gen_ai.client.inference.operation.details"
ADK = "gcp.vertex.agent"
TOLD = {"user.id": "ada", "gen_ai.conversation.id": "desk-1"}

WriteLogs = Callable[[StoragePool, Sequence[Row]], object]


def details(trace: int = 1, number: int = 1, seconds: float = 2, **columns: Any) -> Row:
    return a_log(
        **{
            "id": f"{trace:08x}-0000-4000-8000-{number:012x}",
            "timestamp": START + timedelta(seconds=number + seconds),
            "trace_id": trace_id(trace),
            "span_id": span_id(number),
            "event_name": DETAILS,
            "attributes": TOLD,
            **columns,
        }
    )


def told(pool: StoragePool) -> dict[tuple[int, int], tuple[str | None, str | None]]:
    """User and session by the numbers of trace and span."""
    return {
        (row["trace_id"].int, int(row["span_id"], 16)): (row["user_id"], row["session_id"])
        for row in fetch(pool, TraceSpan)
    }


def by_log_writer(pool: StoragePool, rows: Sequence[Row]) -> None:
    with LogWriter(pool) as writer:
        writer.write_logs(rows)


def by_otlp(pool: StoragePool, rows: Sequence[Row]) -> None:
    records = [
        {
            "timeUnixNano": str(int(row["timestamp"].timestamp() * 1_000_000) * 1000),
            "eventName": row["event_name"],
            "traceId": row["trace_id"],
            "spanId": row["span_id"],
            "attributes": [
                {"key": key, "value": {"stringValue": value}}
                for key, value in row["attributes"].items()
            ],
        }
        for row in rows
    ]
    assert ingest_logs(pool, logs_request(*records)).rejected == []


def by_unit_of_work(pool: StoragePool, rows: Sequence[Row]) -> None:
    with pool.unit_of_work() as uow:
        CopyWriter(uow).write_logs(rows)
        uow.commit()


WAYS: dict[str, WriteLogs] = {
    "copy": lambda pool, rows: CopyWriter(pool, method="copy").write_logs(rows),
    "insert": lambda pool, rows: CopyWriter(pool, method="insert").write_logs(rows),
    "unit of work": by_unit_of_work,
    "log writer": by_log_writer,
    "otlp": by_otlp,
}


@pytest.mark.parametrize("write", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("number", [1, PART + 10], ids=["one", "streamed"])
def test_records_fill_the_spans_that_they_name(
    pool: StoragePool, write: WriteLogs, number: int
) -> None:
    traces = range(1, number + 1)
    CopyWriter(pool).write_spans(
        [a_span(trace, 1) for trace in traces] + [a_span(trace, 2) for trace in traces]
    )
    write(pool, [details(trace) for trace in traces])
    assert told(pool) == {
        (trace, span): ("ada", "desk-1") if span == 1 else (None, None)
        for trace in traces
        for span in (1, 2)
    }
    with pool.unit_of_work() as uow:
        assert len(uow.traces.list(TraceFilters(user_id="ada", limit=1000))) == number


@pytest.mark.parametrize("scope", [ADK, "another"])
def test_a_settlement_fills_spans_that_come_after_their_records(
    pool: StoragePool, scope: str
) -> None:
    # Traces that report a response are settled in any case.
    names = {"response_id": "resp-1", "prompt_tokens": 7} if scope != ADK else {}
    CopyWriter(pool).write_logs([details(), details(2), details(3)])
    CopyWriter(pool).write_spans([a_span(1, 1, scope_name=scope, **names), a_span(2, 1)])
    assert told(pool) == {(1, 1): (None, None), (2, 1): (None, None)}
    assert pool.settle_usage().traces == 1
    assert told(pool) == {(1, 1): ("ada", "desk-1"), (2, 1): (None, None)}
    before = contents(pool)
    pool.settle_usage()
    assert contents(pool) == before


def test_any_order_comes_to_the_same(pool: StoragePool) -> None:
    spans = [a_span(1, number, scope_name=ADK, prompt_tokens=5) for number in (1, 2)]
    spans[1]["parent_span_id"] = span_id(1)
    steps: dict[str, Callable[[], object]] = {
        "outer": lambda: CopyWriter(pool).write_spans(spans[:1]),
        "inner": lambda: CopyWriter(pool).write_spans(spans[1:]),
        # The outer span then tells more of the call, so that its usage counts there.
        "logs": lambda: CopyWriter(pool).write_logs([details()]),
    }
    found = set()
    for order in permutations(steps):
        clear(pool)
        for step in order:
            steps[step]()
        pool.settle_usage()
        found.add(tuple(contents(pool, times_of_writing=False)["trace_spans"]))
        again = contents(pool)
        for step in order:
            steps[step]()
        pool.settle_usage()
        assert contents(pool) == again
    assert len(found) == 1
    by_span = {row["span_id"]: row for row in fetch(pool, TraceSpan)}
    assert by_span[span_id(1)]["total_tokens"] == 5
    assert by_span[span_id(2)]["total_tokens"] is None


def test_what_a_span_tells_itself_stays(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1, user_id="own"), a_span(1, 2, session_id="own")])
    CopyWriter(pool).write_logs([details(1, 1), details(1, 2)])
    assert told(pool) == {(1, 1): ("own", "desk-1"), (1, 2): ("ada", "own")}


def test_the_earliest_record_tells(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span()])
    late = details(seconds=4, id=None, attributes={"enduser.id": "late", "session.id": "late"})
    early = details(seconds=3, attributes={"user.id": "early"})
    del late["id"]
    CopyWriter(pool).write_logs([late, early])
    assert told(pool) == {(1, 1): ("early", "late")}


@pytest.mark.parametrize(
    "columns",
    [
        {"event_name": None},
        {"event_name": "session.start"},
        {"event_name": "gen_ai.evaluation.result"},
        {"span_id": None},
        {"span_id": span_id(9)},
        {"trace_id": trace_id(9)},
        {"attributes": {}},
        {"attributes": {"user.id": 17, "session.id": ""}},
        {"seconds": -3601},
        {"seconds": 24 * 3600},
    ],
    ids=str,
)
def test_other_records_fill_nothing(pool: StoragePool, columns: Row) -> None:
    CopyWriter(pool).write_spans([a_span(scope_name=ADK)])
    CopyWriter(pool).write_logs([details(**columns)])
    pool.settle_usage()
    assert told(pool) == {(1, 1): (None, None)}


def test_a_span_that_is_sent_again_keeps_what_a_record_told(pool: StoragePool) -> None:
    started = a_span(end_time=None, status="unset")
    CopyWriter(pool).write_spans([started])
    CopyWriter(pool).write_logs([details()])
    before = contents(pool)
    CopyWriter(pool).write_spans([started])
    assert contents(pool) == before
    with TraceWriter(pool) as writer:
        writer.write_span(a_span())
    assert told(pool) == {(1, 1): ("ada", "desk-1")}
    CopyWriter(pool).write_spans([a_span(user_id="own")])
    assert told(pool) == {(1, 1): ("own", "desk-1")}


def test_own_attributes_tell_too(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_span(scope_name=ADK)])
    try:
        use_own_aliases({"user_id": ["app.user"]})
        CopyWriter(pool).write_logs([details(attributes={"app.user": "bo", "user.id": "ada"})])
        assert told(pool) == {(1, 1): ("bo", None)}
    finally:
        use_own_aliases({})


def test_a_record_that_was_written_before_tells_once_more(pool: StoragePool) -> None:
    """The stored record stays; the one that is sent again finds the span that came between."""
    CopyWriter(pool).write_logs([details()])
    CopyWriter(pool).write_spans([a_span()])
    CopyWriter(pool).write_logs([details()])
    assert len(fetch(pool, LogRecord)) == 1
    assert told(pool) == {(1, 1): ("ada", "desk-1")}
