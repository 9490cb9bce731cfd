"""Rows of all kinds: values in frames, rollups, pins, closed partitions with their indexes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from observatory_storage import CopyWriter, StoragePool, build_partition_indexes
from tests.repositories.samples import DAY, START, a_log, a_span, many_spans, span_key, trace_key

END: Final = START + 4 * DAY
NOW: Final = END + 2 * DAY  # all days are closed at this time


def write_rows(pool: StoragePool) -> None:
    """Write them, and do what maintenance does."""
    writer = CopyWriter(pool, payloads="compressed")
    words = "the quick brown fox " * 300
    spans: list[dict[str, Any]] = many_spans()
    for span in spans[:5]:
        messages = [{"role": "user", "content": words}]
        span["attributes"] = {"gen_ai.input.messages": messages}
    spans.append(a_span(900, 1, provider="p", model="unpriced", prompt_tokens=3, total_tokens=3))
    writer.write_spans(spans)
    log = {"severity_number": 17, "trace_id": trace_key(1), "span_id": span_key(10)}
    writer.write_logs(
        [
            *(a_log(n, START + n * DAY / 5, body=f"record {n}", **log) for n in range(1, 9)),
            a_log(20, attributes={"text": words}),
        ]
    )
    writer.write_metrics([{"name": "m", "metric_type": "gauge", "service_name": "service"}])
    with pool.unit_of_work() as uow:
        metric = uow.metrics.get_by_name("m")[0].id
        points = [
            {"metric_id": metric, "timestamp": START + n * timedelta(hours=7), "value": n}
            for n in range(10)
        ]
        CopyWriter(uow).write_data_points(points)
        uow.traces.pin(trace_key(2), "kept")
        uow.commit()
    build_partition_indexes(pool, now=NOW)
    pool.maintain(now=max(NOW, datetime.now(UTC)))
