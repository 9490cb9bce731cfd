"""The LLM columns of stored spans are read again as if the spans were written today."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

import pytest
import sqlalchemy as sa

from observatory_storage import (
    CopyWriter,
    LlmConfig,
    LlmSpan,
    RefreshedFacts,
    StoragePool,
    TraceWriter,
    ingest_logs,
    ingest_traces,
)
from observatory_storage.llm import use_own_aliases
from observatory_storage.models import Trace, TraceSpan
from observatory_storage.storing import facts_refresh, stored_usage
from tests.recordings.recording import RECORDINGS
from tests.storing.refreshing import as_today, call, execute, forget_facts, inside, stored
from tests.writers.helpers import START, Row, a_span, contents, event, fetch, span_id, trace_id
from tests.writers.trace_model import check_traces


@pytest.fixture(autouse=True)
def _without_own_aliases() -> Iterator[None]:
    yield
    use_own_aliases({})


def test_recordings_that_an_older_version_stored_are_read_as_today(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for recording in RECORDINGS:
        for signal, request in recording.requests:
            if signal == "traces":
                ingest_traces(pool, request)
            elif signal == "logs":
                ingest_logs(pool, request)
    today = as_today(pool)
    forget_facts(pool)
    assert contents(pool, times_of_writing=False) != today
    monkeypatch.setattr(facts_refresh, "_SPANS_AT_A_TIME", 7)
    refreshed = pool.refresh_facts()
    count = len(today["trace_spans"])
    assert (refreshed.spans, refreshed.next_start) == (count, None)
    assert 0 < refreshed.changed_spans <= count
    assert as_today(pool) == today
    before = contents(pool)
    assert pool.refresh_facts() == RefreshedFacts(count)
    assert contents(pool) == before


def test_usage_of_agents_is_read_again_and_counts_once(pool: StoragePool) -> None:
    cached = {"gen_ai.usage.cache_read.input_tokens": 40}
    spans = [
        call(1, 1, 300, 30, **{"gen_ai.usage.cost": 0.25}),
        inside(call(1, 2, 100, 10, **cached), 1),
        inside(call(1, 3, 200, 20), 1),
        call(2, 1, 7, 1),
    ]
    CopyWriter(pool).write_spans(spans)
    today = as_today(pool)
    forget_facts(pool)
    # The older version knew the tokens of calls, of whose details it knew nothing.
    execute(
        pool,
        "UPDATE trace_spans SET prompt_tokens = 100, completion_tokens = 10, total_tokens = 110"
        f" WHERE span_id = '{span_id(2)}'",
    )
    assert pool.refresh_facts().changed_spans == 4
    assert as_today(pool) == today
    agent = stored(pool)
    assert (agent["total_tokens"], agent["reported_usage"]["total_tokens"]) == (None, 330)


def test_the_report_of_a_span_that_does_not_count_follows(pool: StoragePool) -> None:
    spans = [
        call(1, 1, 30, 3, **{"app.price": "0.5"}),
        inside(call(1, 2, 10, 1), 1),
        inside(call(1, 3, 20, 2), 1),
    ]
    CopyWriter(pool).write_spans(spans)
    assert "total_cost_usd" not in stored(pool)["reported_usage"]
    use_own_aliases({"total_cost_usd": ["app.price"]})
    assert pool.refresh_facts() == RefreshedFacts(3, 1)
    agent = stored(pool)
    assert agent["reported_usage"]["total_cost_usd"] == "0.5"
    assert (agent["total_tokens"], agent["total_cost_usd"]) == (None, Decimal("0.5"))
    assert fetch(pool, Trace)[0]["total_cost_usd"] == Decimal("0.5")
    check_traces(pool)


def test_usage_that_an_older_version_counted_twice_counts_once(pool: StoragePool) -> None:
    # Without attributes no column changes.
    own = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
    spans = [a_span(1, 1, **own), inside(a_span(1, 2, **own), 1), a_span(2, 1, **own)]
    CopyWriter(pool).write_spans(spans)
    today = as_today(pool)
    execute(
        pool,
        "UPDATE trace_spans SET prompt_tokens = 5, completion_tokens = 5, total_tokens = 10,"
        " reported_usage = NULL",
    )
    execute(pool, "UPDATE traces SET total_tokens = 20, usage_span_count = 0 WHERE span_count = 2")
    assert pool.refresh_facts() == RefreshedFacts(3)
    assert as_today(pool) == today


def test_calls_of_several_traces_are_marked_for_the_next_settlement(pool: StoragePool) -> None:
    named = {"gen_ai.response.id": "r"}
    CopyWriter(pool).write_spans([call(1, 1, 5, 5, **named), call(2, 2, 5, 5, **named)])
    today = as_today(pool)
    forget_facts(pool)
    pool.refresh_facts()
    assert pool.settle_usage().traces == 2
    assert as_today(pool) == today
    assert sum(row["total_tokens"] or 0 for row in fetch(pool, Trace)) == 10


def test_large_traces_are_settled_later(pool: StoragePool, monkeypatch: pytest.MonkeyPatch) -> None:
    CopyWriter(pool).write_spans([call(1, 1, 6, 6), *(inside(call(1, n, 2, 2), 1) for n in (2, 3))])
    today = as_today(pool)
    forget_facts(pool)
    monkeypatch.setattr(stored_usage, "MOST_SPANS_AT_ONCE", 2)
    pool.refresh_facts()
    assert fetch(pool, Trace)[0]["total_tokens"] == 20
    assert as_today(pool) == today


def test_events_and_errors_are_read_again(pool: StoragePool) -> None:
    failed = a_span(
        1,
        1,
        status="error",
        otlp={"dropped_events_count": 2},
        events=[
            event("exception", attributes={"exception.type": "E", "exception.message": "no"}),
            event("gen_ai.choice", attributes={"finish_reason": "stop"}),
        ],
    )
    CopyWriter(pool).write_spans([failed, a_span(1, 2, status="error", status_message="own")])
    today = as_today(pool)
    forget_facts(pool)
    assert stored(pool)["otlp"] == {"dropped_events_count": 2}
    assert pool.refresh_facts().changed_spans == 1
    row = stored(pool)
    assert (row["status_message"], row["error_type"]) == ("no", "E")
    assert row["otlp"] == {"dropped_events_count": 2, "status_message": None}
    assert as_today(pool) == today


def test_users_that_log_records_tell_are_filled_again(pool: StoragePool) -> None:
    spans = [call(1, 1, 5, 5), call(2, 2, 5, 5, **{"user.id": "own"})]
    CopyWriter(pool).write_spans(spans)
    records = [
        {
            "trace_id": trace_id(number),
            "span_id": span_id(number),
            "timestamp": START,
            "service_name": "shop",
            "event_name": "gen_ai.client.inference.operation.details",
            "attributes": {"user.id": "ada"},
        }
        for number in (1, 2)
    ]
    CopyWriter(pool).write_logs(records)
    assert [row["user_id"] for row in fetch(pool, TraceSpan, "start_time")] == ["ada", "own"]
    today = as_today(pool)
    forget_facts(pool)
    pool.refresh_facts()
    assert as_today(pool) == today


def test_a_new_alias_applies_to_stored_spans(pool: StoragePool) -> None:
    spans = [
        a_span(1, number, attributes={"app.user": f"u{number}", "user.id": "x"})
        for number in range(1, 4)
    ]
    CopyWriter(pool).write_spans(spans)
    llm = LlmConfig(aliases={"user_id": ("app.user",)})
    with StoragePool(pool.config.model_copy(update={"llm": llm})) as configured:
        assert configured.refresh_facts() == RefreshedFacts(3, 3)
    assert [row["user_id"] for row in fetch(pool, TraceSpan)] == ["u1", "u2", "u3"]


def test_what_no_attribute_says_stays(pool: StoragePool) -> None:
    own = {"user_id": "ada", "provider": "ours", "prompt_tokens": 4, "total_cost_usd": Decimal(1)}
    attributes = {"gen_ai.usage.output_tokens": 6, "gen_ai.request.model": "m"}
    CopyWriter(pool).write_spans([a_span(1, 1, **own, attributes=attributes)])
    # An earlier alias gave the environment.
    execute(pool, "UPDATE trace_spans SET environment = 'test'")
    before = contents(pool)
    assert pool.refresh_facts() == RefreshedFacts(1)
    assert contents(pool) == before
    execute(pool, "UPDATE trace_spans SET model = 'old', completion_tokens = 1, total_tokens = 5")
    assert pool.refresh_facts() == RefreshedFacts(1, 1)
    row = stored(pool)
    assert {**row, **own, "model": "m", "completion_tokens": 6, "total_tokens": 10} == row
    check_traces(pool)


@pytest.mark.parametrize(
    ("columns", "attributes", "total"),
    [
        ({"prompt_tokens": 10, "total_tokens": 10}, {"output": 5}, 15),
        ({"prompt_tokens": 10, "total_tokens": 10}, {"input": 20, "output": 5}, 25),
        ({"total_tokens": 50}, {"input": 20, "output": 5}, 50),
        ({"total_tokens": 50}, {"input": 20, "output": 5, "total": 40}, 40),
        ({"prompt_tokens": 10, "total_tokens": 10}, {"total": 12}, 12),
        ({"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 12}, {"output": 2}, 12),
    ],
)
def test_a_total_is_summed_again_unless_it_was_given(
    pool: StoragePool, columns: Row, attributes: dict[str, int], total: int
) -> None:
    CopyWriter(pool).write_spans([a_span(1, 1, **columns)])
    told = {f"gen_ai.usage.{side}_tokens": count for side, count in attributes.items()}
    with pool.engine.begin() as connection:
        connection.execute(sa.update(TraceSpan).values(attributes=told))
    assert pool.refresh_facts().changed_spans == 1
    assert stored(pool)["total_tokens"] == total
    check_traces(pool)
    assert pool.refresh_facts().changed_spans == 0


def test_numbers_with_more_digits_than_their_attributes_stay(pool: StoragePool) -> None:
    price = Decimal("0.1234567890123456789")
    attributes = {"gen_ai.usage.input_cost": price, "gen_ai.usage.output_cost": price}
    CopyWriter(pool).write_spans([a_span(1, 1, attributes=attributes)])
    with TraceWriter(pool) as writer:
        writer.write_span_from_llm(
            LlmSpan(model="m", prompt_tokens=1, total_cost_usd=price, ttft_ms=1 / 3)
        )
    assert [row["total_cost_usd"] for row in fetch(pool, TraceSpan, "start_time")] == [
        2 * price,
        price,
    ]
    assert pool.refresh_facts() == RefreshedFacts(2)
