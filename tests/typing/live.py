"""The types of live data, as users see them. mypy reads this; nothing runs it."""

from __future__ import annotations

from collections.abc import Generator
from datetime import timedelta
from typing import assert_type

from observatory_storage import (
    DataPointFilters,
    LiveStream,
    LogFilters,
    LogRecord,
    MetricDataPoint,
    Not,
    Page,
    SpanDuration,
    StoragePool,
    StreamEntry,
    StreamGap,
    StreamStats,
    ThresholdPassed,
    Trace,
    TraceCost,
    TraceSpan,
    UserSpend,
    Watch,
)


def live(pool: StoragePool) -> None:
    assert_type(pool.stream("spans", model=Not("m")), LiveStream[TraceSpan])
    assert_type(pool.stream("traces", status="error"), LiveStream[Trace])
    assert_type(pool.stream("data_points", DataPointFilters()), LiveStream[MetricDataPoint])
    with pool.stream("logs", LogFilters(), group="g", timeout=timedelta(seconds=1)) as stream:
        assert_type(stream, LiveStream[LogRecord])
        for entry in stream:
            assert_type(entry, StreamEntry[LogRecord])
            assert_type(entry.row, LogRecord)
    pool.stream("log")  # type: ignore[call-overload]  # what users are told
    pool.stream("logs", model="m")  # type: ignore[call-overload]  # what users are told
    assert_type(pool.tail("logs", min_severity="warn"), Generator[Page[LogRecord], None, None])
    assert_type(pool.tail("traces"), Generator[Page[Trace], None, None])
    assert_type(pool.stream_stats(), StreamStats)

    def hook(passed: ThresholdPassed) -> None:
        print(passed.value)

    def gap(gap: StreamGap) -> None:
        print(gap.rows)

    pool.stream("logs", on_gap=gap)
    assert_type(pool.watch(hook, TraceCost(1), SpanDuration(2), UserSpend(1, 60)), Watch)
