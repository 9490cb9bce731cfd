"""Converts OTLP requests in tests, and compares them by their meaning.

Both sides become protobuf messages, so requests that are equal here are equal to every receiver.
Absent fields differ from empty ones wherever protobuf distinguishes them.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

REQUESTS: dict[str, type[Message]] = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}
KEYS = {
    "traces": ("resource_spans", "scope_spans", "spans"),
    "metrics": ("resource_metrics", "scope_metrics", "metrics"),
    "logs": ("resource_logs", "scope_logs", "log_records"),
}
IDS = ("traceId", "spanId", "parentSpanId")


def as_json(message: Message) -> dict[str, Any]:
    """The message as OTLP/JSON, with ids in upper-case hex."""
    request = json_format.MessageToDict(message, use_integers_for_enums=True)
    converted: dict[str, Any] = _converted(
        request, lambda text: base64.b64decode(text).hex().upper()
    )
    return converted


def as_message(signal: str, request: Mapping[str, Any]) -> Message:
    """OTLP/JSON as a message. Unknown fields are an error."""
    converted = _converted(request, lambda text: base64.b64encode(bytes.fromhex(text)).decode())
    return json_format.ParseDict(converted, REQUESTS[signal]())


def _converted(value: Any, convert: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: convert(item)
            if key in IDS and isinstance(item, str)
            else _converted(item, convert)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_converted(item, convert) for item in value]
    return value


def meaning(signal: str, requests: Iterable[Message | Mapping[str, Any]]) -> Counter[Any]:
    """The items of the requests, each with its resource and scope, whatever the grouping."""
    items: Counter[Any] = Counter()
    for request in requests:
        message = as_message(signal, request) if isinstance(request, Mapping) else request
        copy = type(message)()
        copy.CopyFrom(message)
        _sort_attributes(copy)
        items.update(_items(signal, copy))
    return items


def _items(signal: str, message: Message) -> Iterator[tuple[str, ...]]:
    resources, scopes, items = KEYS[signal]
    for outer in getattr(message, resources):
        inner = list(getattr(outer, scopes))
        outer.ClearField(scopes)
        for scoped in inner:
            found = list(getattr(scoped, items))
            scoped.ClearField(items)
            for item in found:
                for part in _split(item) if signal == "metrics" else (item,):
                    yield str(outer), str(scoped), str(part)


def _split(metric: Any) -> Iterator[Message]:
    """The metric, once with each of its data points."""
    kind = metric.WhichOneof("data")
    points = list(getattr(metric, kind).data_points) if kind else []
    if not points:
        yield metric
        return
    for point in points:
        part = type(metric)()
        part.CopyFrom(metric)
        del getattr(part, kind).data_points[:]
        getattr(part, kind).data_points.append(point)
        yield part


def is_repeated(field: FieldDescriptor) -> bool:
    """The property of this name is there since protobuf 6.31, which warns of its predecessor."""
    return bool(field.default_value == [])


def _sort_attributes(message: Message) -> None:
    for field, value in message.ListFields():
        if field.type != FieldDescriptor.TYPE_MESSAGE:
            continue
        for inside in value if is_repeated(field) else (value,):
            _sort_attributes(inside)
        inside_type = field.message_type
        if is_repeated(field) and inside_type is not None and inside_type.name == "KeyValue":
            ordered = sorted(value, key=lambda pair: (pair.key, str(pair)))
            del value[:]
            value.extend(ordered)
