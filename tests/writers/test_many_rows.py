"""Rows that are handed over together: lists, tuples and iterators, of any length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from observatory_storage.errors import BatchError, StorageError, ValidationError
from observatory_storage.models import LogRecord, Metric, MetricDataPoint, TraceSpan
from observatory_storage.pool import StoragePool
from observatory_storage.rows import PART
from observatory_storage.writers import (
    FlushResult,
    LogWriter,
    MetricWriter,
    TraceWriter,
    WriterConfig,
)
from tests.writers.helpers import a_log, a_metric, a_point, a_span, fetch, span_id, trace_id

PATIENT = WriterConfig(flush_interval_secs=None)
BAD = {0, 1, PART - 1, PART, 2 * PART + 5}
ALL = 2 * PART + 7


def bodies(pool: StoragePool) -> list[Any]:
    return sorted(row["body"] for row in fetch(pool, LogRecord))


@pytest.mark.parametrize("kind", [list, tuple, iter])
@pytest.mark.parametrize("redacts", [False, True])
def test_the_good_rows_are_taken_and_the_others_listed_by_their_places(
    pool: StoragePool, kind: Callable[[Iterable[Any]], Iterable[Any]], redacts: bool
) -> None:
    def redact(row: dict[str, Any]) -> dict[str, Any] | None:
        number = int(row["body"])
        if number == 5:
            raise ValidationError("body", row["body"], "is not for us")
        return None if number % 10 == 7 else {**row, "event_name": "redacted"}

    config = WriterConfig(flush_interval_secs=None, redact=redact if redacts else None)
    rows = [a_log(n, body=f"{n:04}", severity_number=99 if n in BAD else None) for n in range(ALL)]
    with LogWriter(pool, config) as writer:
        with pytest.raises(BatchError) as caught:
            writer.write_logs(kind(rows))
        refused = BAD | {5} if redacts else BAD
        assert [one.index for one in caught.value.rejected] == sorted(refused)
        assert all(one.row is rows[one.index] for one in caught.value.rejected)
        kept_back = {n for n in range(ALL) if redacts and n % 10 == 7}
        taken = set(range(ALL)) - refused - kept_back
        assert writer.flush() == FlushResult(committed=len(taken))
        assert writer.write_stats().redacted == len(kept_back)
    assert bodies(pool) == [f"{n:04}" for n in sorted(taken)]
    names = {row["event_name"] for row in fetch(pool, LogRecord)}
    assert names == {"redacted" if redacts else None}


def test_instances_learn_their_ids(pool: StoragePool) -> None:
    """Also where one between them is refused, and where redaction makes other rows of them."""
    records = [LogRecord(**a_log(n, body=f"{n}")) for n in range(30)]
    records[10].severity_number = 99
    points = [MetricDataPoint(**a_point("00000000-0000-4000-8000-00000000abcd", n)) for n in (1, 2)]
    metrics = [Metric(**a_metric("one")), Metric(**a_metric("two"))]
    config = WriterConfig(redact=dict)
    with LogWriter(pool, PATIENT) as logs, MetricWriter(pool, config) as redacting:
        with pytest.raises(BatchError):
            logs.write_logs(records)
        redacting.write_data_points(points)
        redacting.write_metrics(metrics)
    assert vars(records[10]).get("id") is None
    stored = {row["id"]: row["body"] for row in fetch(pool, LogRecord)}
    assert stored == {one.id: one.body for one in records if one is not records[10]}
    assert len(stored) == 29
    assert {row["id"] for row in fetch(pool, MetricDataPoint)} == {point.id for point in points}
    assert {row["id"]: row["name"] for row in fetch(pool, Metric)} == {
        metric.id: metric.name for metric in metrics
    }


@pytest.mark.parametrize("before", [0, 3, PART, PART + 3])
def test_rows_before_an_error_of_the_iterator_are_taken(pool: StoragePool, before: int) -> None:
    def rows() -> Iterator[Any]:
        yield from (a_span(1, n) for n in range(1, before + 1))
        raise LookupError("of the application")

    with TraceWriter(pool, PATIENT) as writer:
        with pytest.raises(LookupError, match="of the application"):
            writer.write_spans(rows())
        assert writer.buffer_stats().buffered == before
    assert len(fetch(pool, TraceSpan)) == before


def test_rows_dropped_by_redaction_are_not_validated(pool: StoragePool) -> None:
    """Its events may lack what their span would have said; its values may be wrong."""
    config = WriterConfig(flush_interval_secs=None, redact=lambda _: None)
    with TraceWriter(pool, config) as writer:
        writer.write_span(a_span(1, 1))
        writer.write_event({"trace_id": trace_id(1), "span_id": span_id(1), "name": "e"})
        writer.write_spans([a_span(1, 2, status="wrong"), a_span(1, 3)])
        assert writer.write_stats().redacted == 4
        assert writer.flush() == FlushResult()


def test_rows_in_lists_can_be_written_to_no_closed_writer(pool: StoragePool) -> None:
    writer = LogWriter(pool)
    writer.close()
    writer.write_logs([])
    with pytest.raises(StorageError, match="closed"):
        writer.write_logs([a_log()])


def test_no_row_at_all_is_refused(pool: StoragePool) -> None:
    with LogWriter(pool) as writer:
        with pytest.raises(ValidationError, match="must be a LogRecord or a mapping"):
            writer.write_log(None)  # type: ignore[arg-type]  # what a mistake may bring
        with pytest.raises(BatchError, match="must be a LogRecord or a mapping"):
            writer.write_logs([None])  # type: ignore[list-item]  # as above
