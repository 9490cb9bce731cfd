"""All writers of a pool decide about a trace together."""

from __future__ import annotations

import gc
import threading
import weakref
from decimal import Decimal
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from observatory_storage.models import TraceSpan
from observatory_storage.otel import PostgresSpanExporter
from observatory_storage.pool import StoragePool
from observatory_storage.recording import observe_llm
from observatory_storage.rows import Row, prepare_span
from observatory_storage.rows.consistent_sampling import ALL
from observatory_storage.writers import FlushResult, TailSampling, TraceWriter, WriterConfig
from observatory_storage.writers.buffer import Bounds
from observatory_storage.writers.sampling_buffer import SamplingBuffer
from observatory_storage.writers.stats import Recorder
from observatory_storage.writers.tail_sampling import Decider
from observatory_storage.writers.trace_decisions import TraceDecisions
from tests.writers.helpers import a_span, eventually, fetch, fork, quick_pool, span_id, wait_for

KEPT, DROPPED = ALL - 1, 1
NONE = TailSampling(share=0)


def patient(sampling: TailSampling, **settings: Any) -> WriterConfig:
    """Only `flush` and the bounds write."""
    return WriterConfig(flush_interval_secs=None, sampling=sampling, **settings)


def child(trace: int, number: int, **columns: Any) -> dict[str, Any]:
    return a_span(trace, number, parent_span_id=span_id(1), **columns)


def stored(pool: StoragePool) -> list[str]:
    return [row["span_id"] for row in fetch(pool, TraceSpan, "span_id")]


def test_an_exporter_and_observe_llm_keep_the_whole_trace(pool: StoragePool) -> None:
    config = WriterConfig(sampling=NONE)
    provider = TracerProvider()
    with TraceWriter(pool, config) as writer:
        provider.add_span_processor(SimpleSpanProcessor(PostgresSpanExporter(pool, config=config)))
        tracer = provider.get_tracer("web")

        def ask(name: str, problem: Exception | None) -> None:
            with tracer.start_as_current_span(name):
                with observe_llm(writer, provider="openai", model="gpt-5", prompt="q") as call:
                    call.response("a")
                if problem is not None:
                    raise problem

        ask("POST /fine", None)
        with pytest.raises(ValueError, match="boom"):
            ask("POST /ask", ValueError("boom"))
        provider.shutdown()
    names = sorted(row["name"] for row in fetch(pool, TraceSpan))
    assert names == ["POST /ask", "chat gpt-5"]


@pytest.mark.parametrize("of_root", [{"status": "error"}, {}])
def test_a_root_decides_for_the_spans_in_other_writers(
    pool: StoragePool, of_root: dict[str, Any]
) -> None:
    config = patient(NONE)
    with TraceWriter(pool, config) as front, TraceWriter(pool, config) as back:
        back.write_span(child(DROPPED, 2))
        assert back.buffer_stats().undecided == 1
        front.write_span(a_span(DROPPED, 1, **of_root))
        assert back.buffer_stats().undecided == front.buffer_stats().undecided == 0
        back.write_span(child(DROPPED, 3))
        told = [writer.write_stats() for writer in (front, back)]
        expected = ([0, 0], 0) if of_root else ([1, 2], 1)
        assert [each.sampled_out for each in told] == expected[0]
        assert sum(each.sampled_out_traces for each in told) == expected[1]
    assert stored(pool) == ([span_id(number) for number in (1, 2, 3)] if of_root else [])


def test_costs_of_all_writers_add_up(pool: StoragePool) -> None:
    config = patient(TailSampling(share=0, costlier_than_usd=1))
    with TraceWriter(pool, config) as front, TraceWriter(pool, config) as back:
        for number, writer in ((2, front), (3, back)):
            writer.write_span(child(DROPPED, number, total_cost_usd=Decimal("0.7")))
        front.write_span(a_span(DROPPED, 1))
    assert len(stored(pool)) == 3


def test_a_flush_decides_its_traces_for_all_writers(pool: StoragePool) -> None:
    config = patient(NONE)
    with TraceWriter(pool, config) as front, TraceWriter(pool, config) as back:
        front.write_span(child(DROPPED, 2, status="error"))
        back.write_spans([child(DROPPED, 3), child(2, 4)])
        assert front.close() == FlushResult(committed=1)
        assert (back.buffer_stats().undecided, back.buffer_stats().buffered) == (1, 2)
        assert back.flush() == FlushResult(committed=1)
    assert stored(pool) == [span_id(2), span_id(3)]


def test_a_trace_is_decided_in_time_in_all_writers(pool: StoragePool) -> None:
    sampling = TailSampling(share=0, decision_wait_secs=0.05)
    config = WriterConfig(flush_interval_secs=0.01, sampling=sampling)
    with TraceWriter(pool, config) as front, TraceWriter(pool, config) as back:
        front.write_span(child(DROPPED, 2))
        back.write_span(child(DROPPED, 3, status="error"))
        eventually(lambda: front.write_stats().rows == back.write_stats().rows == 1)
    assert len(stored(pool)) == 2


def test_other_settings_and_other_pools_decide_for_themselves(
    pool: StoragePool, database_url: str
) -> None:
    with (
        StoragePool(pool.config) as other,
        TraceWriter(pool, patient(NONE)) as writer,
        TraceWriter(pool, patient(TailSampling(share=1))) as keeping,
        TraceWriter(other, patient(NONE)) as elsewhere,
    ):
        writer.write_span(a_span(DROPPED, 1))
        for number, each in ((2, keeping), (3, elsewhere)):
            each.write_span(child(DROPPED, number, status="error"))
    assert stored(pool) == [span_id(2), span_id(3)]


def test_the_bounds_hold_for_all_writers_together(pool: StoragePool) -> None:
    config = patient(TailSampling(share=0, max_undecided_rows=10))
    with TraceWriter(pool, config) as front, TraceWriter(pool, config) as back:
        for trace in range(1, 21):
            (front if trace % 2 else back).write_span(child(trace, trace))
        undecided = [writer.buffer_stats().undecided for writer in (front, back)]
        assert undecided == [5, 5]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_decides_apart_from_its_parent(pool: StoragePool) -> None:
    config = patient(NONE)
    with TraceWriter(pool, config) as front, TraceWriter(pool, config) as back:
        front.write_span(child(DROPPED, 2))

        def in_child() -> None:
            front.write_span(child(DROPPED, 3))
            back.write_span(a_span(DROPPED, 4, status="error"))
            assert front.close() == back.close() == FlushResult(committed=1)

        wait_for(fork(in_child))
        assert front.buffer_stats().undecided == 1
    assert stored(pool) == [span_id(3), span_id(4)]


def test_a_pool_is_freed_with_its_decisions(database_url: str) -> None:
    pool = quick_pool(database_url)
    with TraceWriter(pool, patient(NONE)) as writer:
        writer.write_span(a_span(DROPPED, 1))
    known = weakref.ref(pool)
    pool.close()
    del pool, writer
    # The thread that has flushed may hold the writer a moment longer.
    eventually(lambda: (gc.collect(), known())[1] is None)


def test_other_threads_write_while_a_flush_decides() -> None:
    """The lock is free between decisions, which a database is not needed to see."""
    sampling = TailSampling(share=0)
    has_begun, may_go_on = threading.Event(), threading.Event()

    class Slow(Decider):
        decided = 0

        def decide(self, trace_number: int, rows: Any) -> int:
            self.decided += 1
            if self.decided == 1:
                has_begun.set()
                may_go_on.wait()
            return super().decide(trace_number, rows)

    decider = Slow(sampling, lambda: (True, None))
    buffer = SamplingBuffer(
        Bounds(10, 10, 1, 5_000), TraceDecisions(sampling, decider), Recorder().counts
    )

    def row(number: int) -> Row:
        return prepare_span(child(number, number))

    with buffer.lock:
        assert buffer.add([row(number) for number in range(1, 3_001)]) == 3_000
    flush = threading.Thread(target=buffer.decide_all)
    flush.start()
    has_begun.wait()
    may_go_on.set()
    with buffer.lock:  # this thread waited for it
        assert 0 < decider.decided < 3_000
        assert buffer.add([row(9_999)]) == 1
    flush.join()
    # What came meanwhile is not decided.
    assert (decider.decided, buffer.weight_undecided) == (3_000, 1)
