"""Rows that many tests only read, written once for each module, and small slices of partitions."""

from __future__ import annotations

from decimal import Decimal

import pytest

from observatory_storage import CopyWriter, StoragePool
from observatory_storage.repositories.reading import partition_slices
from tests.repositories.samples import DAY, SECOND, START, Row, a_log, a_span, many_spans, trace_key


@pytest.fixture(scope="module")
def spans(shared_pool: StoragePool) -> list[Row]:
    """Spans that are in `shared_pool`."""
    rows = many_spans()
    CopyWriter(shared_pool).write_spans(rows)
    return rows


@pytest.fixture(scope="module")
def two_rows(shared_pool: StoragePool) -> StoragePool:
    """For each table a first row, which the values are about, one below it and one above."""
    spans, logs, metrics = [], [], []
    for number, (name, factor) in enumerate((("first", 0), ("below", -1), ("above", 1)), start=1):
        start = START + factor * DAY
        spans.append(
            a_span(
                number,
                number,
                start,
                end_time=start + (5 + factor) * SECOND,
                parent_span_id=None if factor == 0 else f"{9:016x}",
                name=name,
                service_name=name,
                kind="client" if factor == 0 else "server",
                status="ok" if factor == 0 else "error",
                provider=name,
                model=name,
                user_id=name,
                session_id=name,
                environment=name,
                operation=name,
                response_model=name,
                agent_name=name,
                tool_name=name,
                finish_reason=name,
                error_type=name,
                prompt_name=name,
                total_tokens=50 + factor,
                total_cost_usd=Decimal(5 + factor),
                attributes={"key": name, "gen_ai.prompt": name},
            )
        )
        logs.append(
            a_log(
                number,
                start,
                service_name=name,
                severity_number=17 if factor == 0 else 9,
                trace_id=trace_key(number),
                span_id=f"{number:016x}",
                event_name=name,
                attributes={"key": name},
                body=name,
            )
        )
        kind = "gauge" if factor == 0 else "counter"
        metrics.append({"name": name, "service_name": name, "metric_type": kind})
    writer = CopyWriter(shared_pool)
    writer.write_spans(spans)
    writer.write_logs(logs)
    writer.write_metrics(metrics)
    return shared_pool


@pytest.fixture
def _slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first slice is one partition."""
    monkeypatch.setattr(partition_slices, "_FEW", 2)
    monkeypatch.setattr(partition_slices, "_FIRST", 1)
    monkeypatch.setattr(partition_slices, "_GROWTH", 2)
