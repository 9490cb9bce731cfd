"""What an exporter stores equals what the ingest of the same telemetry as OTLP stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from sqlalchemy import select

from observatory_storage import StoragePool, ingest_logs, ingest_metrics, ingest_traces
from observatory_storage.models import Base
from observatory_storage.otel import (
    PostgresLogExporter,
    PostgresMetricExporter,
    PostgresSpanExporter,
)
from tests.otel import sdk_telemetry
from tests.otlp.stored import clear


def traces_request(spans: Sequence[ReadableSpan]) -> Any:
    """The request of the SDK's own exporter, with the trace states of links, which that omits."""
    request = encode_spans(spans)
    states = {
        (link.context.trace_id, link.context.span_id): link.context.trace_state.to_header()
        for span in spans
        for link in span.links
    }
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                for link in span.links:
                    key = int.from_bytes(link.trace_id), int.from_bytes(link.span_id)
                    link.trace_state = states[key]
    return request


OTLP: dict[str, Any] = {
    "spans": lambda pool, given: ingest_traces(pool, traces_request(given)),
    "metrics": lambda pool, given: ingest_metrics(pool, encode_metrics(given)),
    "logs": lambda pool, given: ingest_logs(pool, encode_logs(given)),
}
EXPORTERS: dict[str, Any] = {
    "spans": PostgresSpanExporter,
    "metrics": PostgresMetricExporter,
    "logs": PostgresLogExporter,
}
# When rows are written differs.
TIMES_OF_WRITING = ("created_at", "updated_at")


def values(pool: StoragePool) -> list[str]:
    """Every value of every row, with its table, key and column."""
    found = []
    with pool.engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            keys = [column.name for column in table.primary_key]
            for row in connection.execute(select(table)).mappings():
                place = f"{table.name} {[str(row[key]) for key in keys]}"
                found += [
                    f"{place} {name}={value!r}"
                    for name, value in row.items()
                    if name not in TIMES_OF_WRITING
                ]
    return sorted(found)


@pytest.mark.parametrize("signal", EXPORTERS)
def test_an_exporter_stores_what_the_ingest_stores(pool: StoragePool, signal: str) -> None:
    given = getattr(sdk_telemetry, signal)()
    result = OTLP[signal](pool, given)
    assert result.rejected == []
    expected = values(pool)
    clear(pool)
    exporter = EXPORTERS[signal](pool)
    assert exporter.export(given).name == "SUCCESS"
    exporter.shutdown()
    assert values(pool) == expected
