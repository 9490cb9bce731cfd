"""Which traces a writer with tail sampling keeps, when it decides, and what it holds meanwhile."""

from __future__ import annotations

import random
import re
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from observatory_storage.config import StorageConfig
from observatory_storage.errors import ValidationError
from observatory_storage.llm import LlmSpan
from observatory_storage.models import Trace, TraceEvent, TraceSpan
from observatory_storage.pool import StoragePool
from observatory_storage.rows.consistent_sampling import ALL
from observatory_storage.writers import (
    FlushResult,
    LogWriter,
    TailSampling,
    TraceWriter,
    WriterConfig,
)
from tests.writers.helpers import (
    START,
    a_log,
    a_span,
    a_trace,
    an_event,
    fetch,
    span_id,
    trace_id,
)

# Trace ids whose random numbers are the greatest and the least.
KEPT, DROPPED = ALL - 1, 1


NONE = TailSampling(share=0)


HALF = TailSampling(share=0.5)


def patient(sampling: TailSampling, **settings: Any) -> WriterConfig:
    """Only `flush` and the bounds write."""
    return WriterConfig(flush_interval_secs=None, sampling=sampling, **settings)


def stored(pool: StoragePool) -> list[tuple[str, int | None]]:
    return [(row["span_id"], row["sample_weight"]) for row in fetch(pool, TraceSpan, "span_id")]


def child(trace: int, number: int, parent: int = 1, **columns: Any) -> dict[str, Any]:
    return a_span(trace, number, parent_span_id=span_id(parent), **columns)


def test_a_trace_is_decided_when_its_root_has_ended(pool: StoragePool) -> None:
    with TraceWriter(pool, patient(HALF)) as writer:
        for trace in (KEPT, DROPPED):
            writer.write_span(child(trace, 2))
            writer.write_span(a_span(trace, 1, end_time=None))
        assert writer.buffer_stats().undecided == writer.buffer_stats().buffered == 4
        writer.write_spans([a_span(KEPT, 1), a_span(DROPPED, 1)])
        assert (writer.buffer_stats().undecided, writer.buffer_stats().buffered) == (0, 3)
        told = writer.write_stats()
        assert (told.sampled_out, told.sampled_out_traces, told.decided_early) == (3, 1, 0)
        writer.flush()
    assert stored(pool) == [(span_id(1), 2), (span_id(2), 2)]
    (row,) = fetch(pool, Trace)
    assert (row["span_count"], row["sample_weight"]) == (2, 2)


@pytest.mark.parametrize(
    ("sampling", "columns"),
    [
        (NONE, {"status": "error"}),
        (TailSampling(share=0, slower_than_secs=2), {"duration_us": 3_000_000, "end_time": None}),
        (TailSampling(share=0, costlier_than_usd=0.02), {"total_cost_usd": Decimal("0.021")}),
    ],
)
def test_what_matters_is_kept_whatever_the_share_is(
    pool: StoragePool, sampling: TailSampling, columns: dict[str, Any]
) -> None:
    with TraceWriter(pool, patient(sampling)) as writer:
        writer.write_spans([child(1, 2, **columns), a_span(1, 1), child(2, 4, 3), a_span(2, 3)])
        writer.write_span(child(1, 5))
    assert stored(pool) == [(span_id(1), None), (span_id(2), None), (span_id(5), None)]


def test_errors_may_be_sampled_too(pool: StoragePool) -> None:
    with TraceWriter(pool, patient(TailSampling(share=0, keep_errors=False))) as writer:
        writer.write_span(a_span(1, 1, status="error"))
        assert writer.write_stats().sampled_out_traces == 1
    assert stored(pool) == []


def test_the_cost_of_a_trace_counts_each_call_once(pool: StoragePool) -> None:
    """An agent repeats the cost of the calls inside it."""
    usage: dict[str, Any] = {"total_tokens": 10, "total_cost_usd": Decimal("0.02")}
    agent: dict[str, Any] = {
        "total_tokens": 20,
        "total_cost_usd": Decimal("0.04"),
        "operation": "invoke_agent",
    }
    bound = TailSampling(share=0, costlier_than_usd=Decimal("0.04"))
    with TraceWriter(pool, patient(bound)) as writer:
        writer.write_spans([child(1, 2, **usage), child(1, 3, **usage), a_span(1, 1, **agent)])
        writer.write_spans([child(2, 5, 4, **usage), child(2, 6, 4, **usage)])
        writer.write_span(child(2, 7, 4, **usage))
        writer.write_span(a_span(2, 4))
    assert {row["trace_id"].int for row in fetch(pool, TraceSpan)} == {2}


def test_computed_costs_count_and_unknown_ones_are_kept_until_prices_are_read(
    pool: StoragePool,
) -> None:
    def call() -> LlmSpan:
        return LlmSpan(
            provider="openai",
            model="gpt-4o",
            start_time=START,
            prompt_tokens=1,
            completion_tokens=1,
        )

    bound = TailSampling(share=0, costlier_than_usd=1)
    with TraceWriter(pool, patient(bound)) as writer:
        writer.write_span_from_llm(call())
        writer.write_span(a_span(9, 9))  # without tokens, its cost is known: none
        assert writer.flush() == FlushResult(committed=1)
        writer.write_span_from_llm(call())
        assert writer.flush() == FlushResult()
    assert len(stored(pool)) == 1


def test_late_spans_follow_the_decision(pool: StoragePool) -> None:
    with TraceWriter(pool, patient(HALF)) as writer:
        for trace in (KEPT, DROPPED, 2):
            writer.write_span(a_span(trace, 1, status="error" if trace == 2 else "ok"))
            writer.flush()
        for trace in (KEPT, DROPPED, 2):
            writer.write_span(child(trace, 2, status="error"))
            writer.write_trace(a_trace(trace, status_message="late"))
            event_of_trace = an_event(trace, 2)
            del event_of_trace["span_start_time"], event_of_trace["position"]
            writer.write_event(event_of_trace)
        assert writer.write_stats().sampled_out == 4
        assert writer.write_stats().sampled_out_traces == 1
    weights = {(row["trace_id"].int, row["sample_weight"]) for row in fetch(pool, TraceSpan)}
    assert weights == {(KEPT, 2), (2, None)}
    assert {row["id"].int for row in fetch(pool, Trace)} == {KEPT, 2}
    assert len(fetch(pool, TraceEvent)) == 2


def test_a_forgotten_decision_is_made_again_by_the_trace_id(pool: StoragePool) -> None:
    few = TailSampling(share=0.5, remembered_traces=1)
    with TraceWriter(pool, patient(few)) as writer:
        writer.write_spans([a_span(KEPT, 1), a_span(DROPPED, 2), child(KEPT, 3), child(DROPPED, 4)])
        assert writer.buffer_stats().undecided == 1  # the last one remembered is known
        writer.flush()
    assert stored(pool) == [(span_id(1), 2), (span_id(3), 2)]


def test_several_writers_decide_alike(pool: StoragePool) -> None:
    chance = random.Random(16)
    ids = [f"{chance.getrandbits(128):032x}" for _ in range(300)]
    share = TailSampling(share=0.3)
    with TraceWriter(pool, patient(share)) as front, TraceWriter(pool, patient(share)) as back:
        for trace in ids:
            front.write_span(a_span(trace_id=trace))
            # The span of another service, which has a remote parent.
            back.write_span({**child(1, 2, kind="server"), "trace_id": trace})
        assert front.buffer_stats().undecided == back.buffer_stats().undecided == 0
    traces = fetch(pool, Trace)
    assert {row["trace_id"] for row in traces} == {
        trace for trace in ids if int(trace[-14:], 16) >= 0.7 * ALL
    }
    assert {row["span_count"] for row in traces} == {2}
    assert {row["sample_weight"] for row in traces} == {3, 4}


@pytest.mark.parametrize(
    ("columns", "is_root"),
    [
        ({"kind": "server"}, True),
        ({"kind": "consumer"}, True),
        ({"kind": "client"}, False),
        ({"kind": "server", "otlp": {"flags": 0x101}}, False),
        ({"kind": "internal", "otlp": {"flags": 0x301}}, True),
        ({"kind": "internal", "otlp": {"flags": 1}}, False),
    ],
)
def test_a_span_with_a_remote_parent_is_a_root(
    pool: StoragePool, columns: dict[str, Any], is_root: bool
) -> None:
    with TraceWriter(pool, patient(HALF)) as writer:
        writer.write_span(child(1, 2, **columns))
        assert writer.buffer_stats().undecided == (not is_root)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"share": 1.5}, "share=1.5: must be a number from 0 to 1"),
        ({"share": True}, "share=True: must"),
        ({"share": float("nan")}, "share=nan: must"),
        ({"keep_errors": 1}, "keep_errors=1: must be True or False"),
        ({"slower_than_secs": -1}, "slower_than_secs=-1: must"),
        ({"costlier_than_usd": "much"}, "costlier_than_usd='much': must"),
        ({"costlier_than_usd": -1}, "costlier_than_usd=-1: must"),
        ({"decision_wait_secs": 0}, "decision_wait_secs=0: must be a number above 0"),
        ({"max_undecided_rows": 0}, "max_undecided_rows=0: must be an integer"),
        ({"max_undecided_bytes": 1.5}, "max_undecided_bytes=1.5: must be an integer"),
        ({"remembered_traces": True}, "remembered_traces=True: must be an integer"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(told)):
        TailSampling(**settings)


def test_other_values_are_no_sampling() -> None:
    with pytest.raises(ValidationError, match=r"sampling=0\.1: must be TailSampling"):
        WriterConfig(sampling=0.1)  # type: ignore[arg-type]  # as a caller without types may do


def test_the_configuration_of_the_pool_applies_without_one_of_the_writer(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("OBSERVATORY_SAMPLING_SHARE", "0.5")
    monkeypatch.setenv("OBSERVATORY_SAMPLING_SLOWER_THAN_SECS", "2")
    with StoragePool(StorageConfig.from_env()) as pool:
        with TraceWriter(pool) as writer:
            slow = a_span(DROPPED, 3, end_time=START + timedelta(seconds=60))
            writer.write_spans([a_span(KEPT, 1), a_span(2, 2), slow])
        assert stored(pool) == [(span_id(1), 2), (span_id(3), None)]
        with TraceWriter(pool, patient(TailSampling(share=1))) as writer:
            writer.write_span(a_span(3, 4))
        assert (span_id(4), None) in stored(pool)
        # Log records of a trace that was dropped stay.
        with LogWriter(pool) as logs:
            logs.write_log(a_log(trace_id=trace_id(2)))
        assert logs.write_stats().rows == 1
