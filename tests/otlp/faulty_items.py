"""Requests whose items lack something or have it wrong, and what is stored of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from observatory_storage import (
    IngestResult,
    MetricDataPoint,
    StoragePool,
    TraceSpan,
)
from tests.otlp.samples import (
    TRACE_ID,
    metrics_request,
)

FORMS: tuple[Callable[[Any], Any], ...] = (
    lambda request: request,
    lambda request: json.dumps(request).encode(),
)
END = "1544712661000000456"


def without(item: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name not in names}


def the_error(result: IngestResult) -> str:
    assert result.accepted == 0
    (refused,) = result.rejected
    return str(refused.error)


def gauge(**fields: Any) -> dict[str, Any]:
    return metrics_request({"name": "calls", "gauge": {"dataPoints": [point(**fields)]}})


def histogram(**fields: Any) -> dict[str, Any]:
    data = {"aggregationTemporality": 2, "dataPoints": [point(**fields)]}
    return metrics_request({"name": "took", "histogram": data})


def point(**fields: Any) -> dict[str, Any]:
    return {"timeUnixNano": "1544712660300000001", **fields}


def stored_span(pool: StoragePool) -> TraceSpan:
    with pool.unit_of_work() as uow:
        (stored,) = uow.traces.get_spans(TRACE_ID, with_events=True)
    return stored


def stored_point(pool: StoragePool) -> MetricDataPoint:
    with pool.unit_of_work() as uow:
        (metric,) = uow.metrics.list()
        (stored,) = uow.metrics.get_data_points(metric.id)
    return stored
