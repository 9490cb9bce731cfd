"""The last version of a row is the last one written, however many flushes run at once."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import pytest

from observatory_storage.errors import StorageError, Timeout
from observatory_storage.models import LogRecord, Metric, MetricDataPoint, Trace, TraceSpan
from observatory_storage.pool import StoragePool
from observatory_storage.rows import (
    Row,
    prepare_data_point,
    prepare_event,
    prepare_log,
    prepare_metric,
    prepare_span,
    prepare_trace,
)
from observatory_storage.writers import FlushResult, LogWriter, MetricWriter, TraceWriter
from observatory_storage.writers.batch_queue import Batch, Queue
from observatory_storage.writers.config import WriterConfig
from tests.writers.helpers import (
    DEADLINE_SECS,
    ONCE,
    START,
    a_log,
    a_metric,
    a_point,
    a_span,
    a_trace,
    an_event,
    count,
    eventually,
    fetch,
    locked,
    quick_pool,
)
from tests.writers.trace_model import check_traces

METRIC = "00000000-0000-4000-8000-00000000abcd"
LOG = "00000000-0000-4000-8000-0000000000ef"

# Two versions of a row each, and another row.
VERSIONS: dict[str, tuple[Row, Row, Row]] = {
    "traces": (
        prepare_trace(a_trace(1)),
        prepare_trace(a_trace(1, status="ok")),
        prepare_trace(a_trace(2)),
    ),
    "spans": (
        prepare_span(a_span(1, 1)),
        prepare_span(a_span(1, 1, status="error")),
        prepare_span(a_span(1, 2)),
    ),
    "events": (
        prepare_event(an_event(1, 1)),
        prepare_event(an_event(1, 1, name="other")),
        prepare_event(an_event(1, 2)),
    ),
    "a span and its event": (
        prepare_span(a_span(1, 1)),
        prepare_event(an_event(1, 1)),
        prepare_event(an_event(1, 2)),
    ),
    "metrics": (
        prepare_metric(a_metric()),
        prepare_metric(a_metric(description="other")),
        prepare_metric(a_metric("another")),
    ),
    "points": (
        prepare_data_point(a_point(METRIC)),
        prepare_data_point(a_point(METRIC, value=2.0)),
        prepare_data_point(a_point(METRIC, 1)),
    ),
    "logs": (
        prepare_log(a_log(id=LOG)),
        prepare_log(a_log(id=LOG, body="other")),
        prepare_log(a_log()),
    ),
}


def batches(*contents: Iterable[Row]) -> list[Batch]:
    made = [Batch(number) for number in range(len(contents))]
    for batch, rows in zip(made, contents, strict=True):
        batch.rows += rows
    return made


@pytest.mark.parametrize("versions", VERSIONS.values(), ids=VERSIONS)
def test_versions_of_a_row_are_not_written_at_once(versions: tuple[Row, Row, Row]) -> None:
    first, second, other = versions
    queue = Queue()
    one, two, three, four = batches([first], [second, other], [other], [])
    for batch in (one, two, three, four):
        queue.add(batch)
    waits: list[float] = []
    assert queue.take(waits) is one
    # The third has nothing in common with the first, but with the second, which waits for that.
    assert queue.take(waits, {one}) is four
    assert queue.take(waits, {one, four}) is None
    assert queue.take(waits, {four}) is two
    assert queue.take(waits, {two}) is None
    assert queue.take(waits) is three
    assert waits == []


def test_a_failed_batch_is_overtaken_only_by_batches_without_its_rows() -> None:
    spans = [prepare_span(a_span(1, number)) for number in range(1, 5)]
    queue = Queue()
    failed, same, other = batches(spans[:2], spans[1:3], spans[3:])
    failed.failed(StorageError("of its own"), 1000)
    for batch in (other, failed, same):
        queue.add(batch)
    assert list(queue) == [failed, same, other]
    waits: list[float] = []
    assert queue.take(waits) is other
    assert queue.take(waits) is None
    assert all(999 < wait <= 1000 for wait in waits)
    queue.hurry()
    assert [queue.take([]), queue.take([])] == [failed, same]


def test_nothing_overtakes_while_the_database_is_away() -> None:
    queue = Queue()
    failed, other = batches([prepare_span(a_span(1, 1))], [prepare_span(a_span(1, 2))])
    failed.failed(StorageError("away", retryable=True), 1000)
    queue.add(failed)
    queue.add(other)
    assert queue.take([]) is None


def test_the_last_of_many_parallel_versions_remains(pool: StoragePool) -> None:
    """Spans that have ended, metrics and traces replace what is there."""
    config = WriterConfig(batch_size=1, max_concurrency=4, flush_interval_secs=None)
    with MetricWriter(pool, config) as metrics, TraceWriter(pool, config) as traces:
        for version in range(120):
            metrics.write_metric(a_metric(f"m{version % 3}", description=f"{version}"))
            traces.write_span(a_span(1, version % 3 + 1, name=f"{version}"))
            traces.write_trace(a_trace(version % 3 + 5, attributes={"version": version}))
    last = ["117", "118", "119"]
    assert sorted(row["description"] for row in fetch(pool, Metric)) == last
    assert sorted(row["name"] for row in fetch(pool, TraceSpan)) == last
    given = [row["attributes"] for row in fetch(pool, Trace) if row["span_count"] == 0]
    assert sorted(row["version"] for row in given) == [117, 118, 119]


def test_the_first_of_many_parallel_versions_remains_if_none_replaces(
    pool: StoragePool,
) -> None:
    config = WriterConfig(batch_size=1, max_concurrency=4, flush_interval_secs=None)
    with MetricWriter(pool, config) as metrics, LogWriter(pool, config) as logs:
        for version in range(60):
            metrics.write_data_point(a_point(METRIC, version // 20, value=float(version)))
            logs.write_log(a_log(version // 20, id=LOG, body=f"{version}"))
    assert [row["value"] for row in fetch(pool, MetricDataPoint)] == [0.0, 20.0, 40.0]
    assert [row["body"] for row in fetch(pool, LogRecord)] == ["0", "20", "40"]


def test_a_flush_does_not_wait_for_batches_behind_a_failed_batch(
    pool: StoragePool, database_url: str
) -> None:
    """It raises that failure; when the first can be written, so is the second, after it."""
    pool.partitions.ensure("trace_events", [START])
    config = WriterConfig(batch_size=1, flush_interval_secs=None)
    with (
        quick_pool(database_url, ONCE, statement_timeout_ms=250) as impatient,
        TraceWriter(impatient, config) as writer,
    ):
        with locked(database_url, "traces"):
            writer.write_trace(a_trace(attributes={"version": 1}))
            writer.write_trace(a_trace(attributes={"version": 2}))
            writer.write_event(an_event(1, 1))
            with pytest.raises(Timeout, match="statement timeout"):
                writer.flush(DEADLINE_SECS)
            eventually(lambda: count(pool, "trace_events") == 1)
            assert writer.buffer_stats().buffered == 2
        assert writer.flush() == FlushResult(committed=3)
    assert [row["attributes"] for row in fetch(pool, Trace)] == [{"version": 2}]


def test_other_batches_run_beside_a_batch_that_blocks_versions_of_its_rows(
    pool: StoragePool, database_url: str
) -> None:
    """Two versions of a span and another span, by three threads, of which one has nothing to do."""
    pool.partitions.ensure("trace_spans", [START, START + timedelta(days=1)])
    config = WriterConfig(batch_size=1, max_concurrency=3, flush_interval_secs=None)
    with TraceWriter(pool, config) as writer:
        with locked(database_url, "trace_spans"):
            writer.write_spans(a_span(1, 1, name=name) for name in ("first", "second", "third"))
            writer.write_span(a_span(1, 2, name="another"))
            eventually(lambda: writer.buffer_stats().in_flight == 2)
            assert writer.buffer_stats().buffered == 4
        assert writer.flush() == FlushResult(committed=4)
    assert [row["name"] for row in fetch(pool, TraceSpan)] == ["third", "another"]
    check_traces(pool)
