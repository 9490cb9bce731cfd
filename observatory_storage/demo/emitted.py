"""Counts what the SDK emits, from its own objects before they are encoded."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from decimal import Decimal
from typing import Any

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.metrics.export import (
    ExponentialHistogram,
    Gauge,
    Histogram,
    MetricsData,
    NumberDataPoint,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import format_trace_id

from observatory_storage.demo.counts import Counts, TraceCounts

__all__ = ["EmittedCounts"]


class EmittedCounts:
    """Counts of spans, events, links, tokens, costs, log records and data points."""

    def __init__(self) -> None:
        self.spans: Counter[str] = Counter()
        self.traces: defaultdict[str, TraceCounts] = defaultdict(TraceCounts)
        self.tokens: Counter[str] = Counter()
        self.costs: defaultdict[str, Decimal] = defaultdict(Decimal)
        self.logs: Counter[str] = Counter()
        self.points: Counter[str] = Counter()
        self.observations: Counter[str] = Counter()
        self.values: defaultdict[str, list[float]] = defaultdict(list)

    def add_span(self, span: ReadableSpan) -> None:
        """Count a finished span."""
        attributes = span.attributes or {}
        failed = not span.status.is_ok
        self.spans["spans"] += 1
        self.spans[f"kind {span.kind.name.lower()}"] += 1
        self.spans[f"status {span.status.status_code.name.lower()}"] += 1
        self.spans[f"service {_service(span.resource)}"] += 1
        self.spans["events"] += len(span.events)
        self.spans["links"] += len(span.links)
        self.spans["nanoseconds"] += (span.end_time or 0) - (span.start_time or 0)
        trace = self.traces[format_trace_id(span.context.trace_id)]
        trace.spans += 1
        trace.errors += failed
        usage = _usage(attributes)
        if usage is not None:
            model, tokens, cost = usage
            trace.tokens += tokens
            trace.cost += cost
            self.tokens[model] += tokens
            self.costs[model] += cost

    def add_log(self, record: ReadableLogRecord) -> None:
        """Count a log record."""
        log = record.log_record
        self.logs["records"] += 1
        self.logs[f"severity {log.severity_text}"] += 1
        self.logs[f"service {_service(record.resource)}"] += 1
        if log.trace_id:
            self.logs["within a trace"] += 1
        if log.event_name:
            self.logs[f"event {log.event_name}"] += 1

    def add_metrics(self, data: MetricsData) -> None:
        """Count the data points of a collection."""
        for resource in data.resource_metrics:
            service = _service(resource.resource)
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    name = f"{service} {metric.name} ({_type_of(metric.data)})"
                    for point in metric.data.data_points:
                        self.points[name] += 1
                        if isinstance(point, NumberDataPoint):
                            self.values[name].append(point.value)
                        else:
                            self.values[name].append(point.sum)
                            self.observations[name] += point.count

    def counts(self) -> Counts:
        """The counts, for the comparison with those of the stored rows."""
        return Counts(
            spans=dict(self.spans),
            traces=dict(self.traces),
            tokens=dict(self.tokens),
            costs=dict(self.costs),
            logs=dict(self.logs),
            points=dict(self.points),
            observations=dict(self.observations),
            # fsum rounds once, so the order of the values does not matter.
            sums={name: math.fsum(values) for name, values in self.values.items()},
        )


def _service(resource: Resource) -> str:
    return str(resource.attributes["service.name"])


def _usage(attributes: Any) -> tuple[str, int, Decimal] | None:
    """The model, tokens and cost of a model call, in either convention that the demo uses."""
    if attributes.get("gen_ai.operation.name") == "chat":
        # OpenTelemetry's GenAI conventions. The span of the agent (operation invoke_agent) repeats
        # the usage of its calls, so it is not counted.
        tokens = ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens")
        costs = ("gen_ai.usage.input_cost", "gen_ai.usage.output_cost")
        model = attributes["gen_ai.request.model"]
    elif attributes.get("openinference.span.kind") == "LLM":
        tokens = ("llm.token_count.prompt", "llm.token_count.completion")
        costs = ("llm.cost.prompt", "llm.cost.completion")
        model = attributes["llm.model_name"]
    else:
        return None
    if tokens[0] not in attributes:
        return None  # the call failed
    total = sum(attributes[key] for key in tokens)
    return model, total, sum((Decimal(repr(attributes[key])) for key in costs), Decimal(0))


def _type_of(data: object) -> str:
    if isinstance(data, Sum):
        return "counter" if data.is_monotonic else "updowncounter"
    names = {
        Gauge: "gauge",
        Histogram: "histogram",
        ExponentialHistogram: "exponential_histogram",
    }
    return names[type(data)]
