"""What tail sampling holds: for how long, how much, and what happens at the ends."""

from __future__ import annotations

from datetime import timedelta

import pytest

from observatory_storage.errors import StorageError
from observatory_storage.models import TraceEvent
from observatory_storage.pool import StoragePool
from observatory_storage.rows.consistent_sampling import ALL
from observatory_storage.writers import (
    FlushResult,
    TailSampling,
    TraceWriter,
    WriterConfig,
)
from tests.writers.helpers import (
    START,
    a_span,
    event,
    eventually,
    fetch,
    fork,
    span_id,
    trace_id,
    wait_for,
)
from tests.writers.test_tail_sampling import DROPPED, HALF, KEPT, child, patient, stored


def test_a_trace_without_an_ended_root_is_decided_in_time(pool: StoragePool) -> None:
    soon = TailSampling(share=0.5, decision_wait_secs=0.05)
    with TraceWriter(pool, WriterConfig(flush_interval_secs=0.01, sampling=soon)) as writer:
        writer.write_span(child(KEPT, 2))
        eventually(lambda: writer.write_stats().rows == 1)
        writer.write_span(child(DROPPED, 3))
        eventually(lambda: writer.write_stats().sampled_out == 1)
        assert writer.buffer_stats().buffered == 0


def test_a_trace_is_decided_in_time_without_a_flush_interval(pool: StoragePool) -> None:
    soon = TailSampling(share=0.5, decision_wait_secs=0.01)
    with TraceWriter(pool, patient(soon, batch_size=1)) as writer:
        writer.write_span(child(KEPT, 2))
        eventually(lambda: writer.write_stats().rows == 1)


@pytest.mark.parametrize(
    "sampling",
    [
        TailSampling(share=0.5, max_undecided_rows=10),
        TailSampling(share=0.5, max_undecided_bytes=30_000),
    ],
)
def test_beyond_a_bound_the_oldest_traces_are_decided(
    pool: StoragePool, sampling: TailSampling
) -> None:
    with TraceWriter(pool, patient(sampling)) as writer:
        for trace in range(1, 101):
            writer.write_span(child(trace * 2**49, trace, events=[event("e")]))
            assert writer.buffer_stats().undecided <= 14
        undecided = writer.buffer_stats().undecided
        assert undecided > 4
        assert writer.write_stats().decided_early == 100 - undecided // 2
    assert len(stored(pool)) == sum(trace * 2**49 >= ALL // 2 for trace in range(1, 101))


def test_held_rows_count_towards_the_capacity(pool: StoragePool) -> None:
    small = patient(HALF, batch_size=5, max_buffered=5, on_full="raise")
    with TraceWriter(pool, small) as writer:
        writer.write_spans([child(DROPPED, 2), child(2, 3), child(KEPT, 4), child(3, 5)])
        writer.write_span(child(4, 6))
        assert writer.buffer_stats().buffered == 5
        writer.write_span(child(5, 7))  # which drops the oldest one
        told = writer.write_stats()
        assert (told.sampled_out, told.decided_early) == (1, 1)
        assert writer.buffer_stats().buffered == 5


def test_a_full_buffer_of_kept_rows_follows_on_full(pool: StoragePool) -> None:
    keep = TailSampling(share=1)
    small = patient(keep, batch_size=3, max_buffered=3, on_full="drop", max_concurrency=1)
    with TraceWriter(pool, small) as writer, pool.unit_of_work() as uow:
        uow.session.connection().exec_driver_sql("LOCK TABLE trace_spans IN SHARE MODE")
        writer.write_spans([child(1, 2), child(1, 3), child(2, 4)])
        writer.write_span(child(3, 5))
        assert writer.buffer_stats().buffered <= 3
        assert writer.write_stats().dropped == 1
        uow.rollback()
        writer.flush()
    assert [span for span, _ in stored(pool)] == [span_id(2), span_id(3), span_id(4)]


def test_a_trace_larger_than_the_buffer_is_written(pool: StoragePool) -> None:
    small = patient(TailSampling(share=1), batch_size=5, max_buffered=5)
    with TraceWriter(pool, small) as writer:
        writer.write_spans(child(1, number) for number in range(2, 40))
        writer.write_span(a_span(1, 1, events=[event("e")] * 9))
    assert len(stored(pool)) == 39


def test_flush_and_close_decide_what_is_held(pool: StoragePool) -> None:
    writer = TraceWriter(pool, patient(HALF))
    writer.write_spans([child(KEPT, 2), child(DROPPED, 3), child(2, 4, status="error")])
    assert writer.flush() == FlushResult(committed=2)
    assert writer.buffer_stats().buffered == 0
    writer.write_span(child(KEPT - 1, 5))
    assert writer.close() == FlushResult(committed=1)
    with pytest.raises(StorageError, match="closed"):
        writer.write_span(a_span(KEPT, 6))
    assert [span for span, _ in stored(pool)] == [span_id(2), span_id(4), span_id(5)]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_leaves_what_is_held_to_its_parent(pool: StoragePool) -> None:
    with TraceWriter(pool, patient(HALF)) as writer:
        writer.write_span(child(KEPT, 2))

        def in_child() -> None:
            assert writer.buffer_stats().undecided == 0
            writer.write_span(a_span(KEPT - 1, 3))
            assert writer.close() == FlushResult(committed=1)

        wait_for(fork(in_child))
        assert writer.flush() == FlushResult(committed=1)
    assert stored(pool) == [(span_id(2), 2), (span_id(3), 2)]


def test_an_event_finds_its_span_while_that_is_held(pool: StoragePool) -> None:
    with TraceWriter(pool, patient(HALF)) as writer:
        writer.write_span(child(KEPT, 2))
        for _ in range(2):
            writer.write_event(
                {
                    "trace_id": trace_id(KEPT),
                    "span_id": span_id(2),
                    "name": "e",
                    "timestamp": START + timedelta(seconds=1),
                }
            )
    assert [row["position"] for row in fetch(pool, TraceEvent)] == [0, 1]
