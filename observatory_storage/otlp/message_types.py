"""The messages of OTLP as msgspec reads them from JSON: their fields, types and bounds.

Fields have the names that protobuf's classes have, so that one mapping reads both. What these types
do not accept, although OTLP/JSON or this package does, is read by `json_reader`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Final

from msgspec import Meta, Raw, Struct, defstruct

from observatory_storage.models import KINDS, TEMPORALITIES
from observatory_storage.otlp import protojson

__all__ = [
    "ENVELOPES",
    "POINTS",
    "REQUESTS",
    "STATUSES",
    "AnyValue",
    "ArrayValue",
    "Buckets",
    "Data",
    "Event",
    "Exemplar",
    "ExponentialHistogramDataPoint",
    "HistogramDataPoint",
    "KeyValue",
    "Link",
    "LogRecord",
    "Metric",
    "NumberDataPoint",
    "Resource",
    "Scope",
    "Span",
    "Status",
    "present",
    "snake",
]

STATUSES: Final = ("unset", "ok", "error")  # by their number in OTLP
_LEVELS: Final = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
_SEVERITIES: Final = {"SEVERITY_NUMBER_UNSPECIFIED": 0} | {
    f"SEVERITY_NUMBER_{level}{step or ''}": index * 4 + max(step, 1)
    for index, level in enumerate(_LEVELS)
    for step in (0, 2, 3, 4)
}
_MIN_INT32, _MAX_INT32 = -(2**31), 2**31 - 1
_MIN_INT64: Final = -(2**63)


def _type(
    read: Callable[[Any, str], Any], least: int | None = None, most: int | None = None
) -> Meta:
    """The bounds of a type, and how `json_reader` reads a value of it."""
    return Meta(ge=least, le=most, extra={"read": read})


def _numbered(prefix: str, names: tuple[str, ...]) -> dict[str, int]:
    return {f"{prefix}_{name.upper()}": number for number, name in enumerate(names)}


def _enum(names: Mapping[str, int]) -> Meta:
    return _type(partial(protojson.enum, names=names), _MIN_INT32, _MAX_INT32)


_Text = Annotated[str, _type(protojson.text)]
_Hex = Annotated[str, _type(protojson.hex_id)]
_Bool = Annotated[bool | int | str, _type(protojson.boolean)]
_Double = Annotated[float | str, _type(protojson.double)]
_UInt32 = Annotated[int, _type(protojson.uint32, 0, 2**32 - 1)]
# A greater one is read thoroughly: msgspec has no bounds above 63 bits.
_UInt64 = Annotated[int, _type(protojson.uint64, 0, protojson.MAX_INT64)]
_SInt32 = Annotated[
    int,
    _type(partial(protojson.integer, least=_MIN_INT32, most=_MAX_INT32), _MIN_INT32, _MAX_INT32),
]
_Int64 = Annotated[
    int,
    _type(
        partial(protojson.integer, least=_MIN_INT64, most=protojson.MAX_INT64),
        _MIN_INT64,
        protojson.MAX_INT64,
    ),
]
_Kind = Annotated[int, _enum(_numbered("SPAN_KIND", KINDS))]
_StatusCode = Annotated[int, _enum(_numbered("STATUS_CODE", STATUSES))]
_Severity = Annotated[int, _enum(_SEVERITIES)]
_Temporality = Annotated[int, _enum(_numbered("AGGREGATION_TEMPORALITY", TEMPORALITIES))]


class _Message(
    Struct, rename="camel", forbid_unknown_fields=True, omit_defaults=True, gc=False, kw_only=True
):
    pass


class AnyValue(_Message):
    """The value of an attribute, or the body of a log record: one of its members."""

    string_value: str | None = None
    bool_value: _Bool | None = None
    int_value: _Int64 | None = None
    double_value: _Double | None = None
    array_value: ArrayValue | None = None
    kvlist_value: _KeyValueList | None = None
    bytes_value: str | None = None
    string_value_strindex: _SInt32 | None = None


class KeyValue(_Message):
    """An attribute."""

    key: str = ""
    value: AnyValue | None = None
    key_strindex: _SInt32 = 0


class ArrayValue(_Message):
    """The items of an array."""

    values: list[AnyValue] = []


class _KeyValueList(_Message):
    values: list[KeyValue] = []


class EntityRef(_Message):
    schema_url: _Text = ""
    type: _Text = ""
    id_keys: list[_Text] = []
    description_keys: list[_Text] = []


class Resource(_Message):
    """What sends telemetry."""

    attributes: list[KeyValue] = []
    dropped_attributes_count: _UInt32 = 0
    entity_refs: list[EntityRef] = []


class Scope(_Message):
    """The instrumentation that made telemetry."""

    name: _Text = ""
    version: _Text = ""
    attributes: list[KeyValue] = []
    dropped_attributes_count: _UInt32 = 0


class Status(_Message):
    """Whether what a span stands for succeeded."""

    message: _Text = ""
    code: _StatusCode = 0


class Event(_Message):
    """An event of a span."""

    time_unix_nano: _UInt64 = 0
    name: _Text = ""
    attributes: list[KeyValue] = []
    dropped_attributes_count: _UInt32 = 0


class Link(_Message):
    """A link of a span to another span."""

    trace_id: _Hex = ""
    span_id: _Hex = ""
    trace_state: _Text = ""
    attributes: list[KeyValue] = []
    dropped_attributes_count: _UInt32 = 0
    flags: _UInt32 = 0


class Span(_Message):
    """A span, whose events and links are read with it."""

    trace_id: Annotated[str, _type(partial(protojson.hex_id, digits=32))] = ""
    span_id: Annotated[str, _type(partial(protojson.hex_id, digits=16))] = ""
    trace_state: _Text = ""
    parent_span_id: Annotated[str, _type(partial(protojson.hex_id, digits=16))] = ""
    flags: _UInt32 = 0
    name: _Text = ""
    kind: _Kind = 0
    start_time_unix_nano: _UInt64 = 0
    end_time_unix_nano: _UInt64 = 0
    attributes: list[KeyValue] = []
    dropped_attributes_count: _UInt32 = 0
    events: list[Event] = []
    dropped_events_count: _UInt32 = 0
    links: list[Link] = []
    dropped_links_count: _UInt32 = 0
    status: Status | None = None


class LogRecord(_Message):
    """A log record."""

    time_unix_nano: _UInt64 = 0
    observed_time_unix_nano: _UInt64 = 0
    severity_number: _Severity = 0
    severity_text: _Text = ""
    body: AnyValue | None = None
    attributes: list[KeyValue] = []
    dropped_attributes_count: _UInt32 = 0
    flags: _UInt32 = 0
    trace_id: Annotated[str, _type(partial(protojson.hex_id, digits=32))] = ""
    span_id: Annotated[str, _type(partial(protojson.hex_id, digits=16))] = ""
    event_name: _Text = ""


class Exemplar(_Message):
    """A measurement that a data point has as an example."""

    filtered_attributes: list[KeyValue] = []
    time_unix_nano: _UInt64 = 0
    as_double: _Double | None = None
    as_int: _Int64 | None = None
    span_id: _Hex = ""
    trace_id: _Hex = ""


class _DataPoint(_Message):
    attributes: list[KeyValue] = []
    start_time_unix_nano: _UInt64 = 0
    time_unix_nano: _UInt64 = 0
    flags: _UInt32 = 0


class NumberDataPoint(_DataPoint):
    """A data point of a gauge or a sum."""

    as_double: _Double | None = None
    as_int: _Int64 | None = None
    exemplars: list[Exemplar] = []


class HistogramDataPoint(_DataPoint):
    """A data point of a histogram."""

    count: _UInt64 = 0
    sum: _Double | None = None
    bucket_counts: list[_UInt64] = []
    explicit_bounds: list[_Double] = []
    exemplars: list[Exemplar] = []
    min: _Double | None = None
    max: _Double | None = None


class Buckets(_Message):
    """The buckets of one sign of an exponential histogram."""

    offset: _SInt32 = 0
    bucket_counts: list[_UInt64] = []


class ExponentialHistogramDataPoint(_DataPoint):
    """A data point of an exponential histogram."""

    count: _UInt64 = 0
    sum: _Double | None = None
    scale: _SInt32 = 0
    zero_count: _UInt64 = 0
    positive: Buckets | None = None
    negative: Buckets | None = None
    exemplars: list[Exemplar] = []
    min: _Double | None = None
    max: _Double | None = None
    zero_threshold: _Double = 0.0


class Quantile(_Message):
    quantile: _Double = 0.0
    value: _Double = 0.0


class SummaryDataPoint(_DataPoint):
    count: _UInt64 = 0
    sum: _Double = 0.0
    quantile_values: list[Quantile] = []


class Data(_Message):
    """The data of a metric, whatever its kind."""

    data_points: list[Raw] = []
    aggregation_temporality: _Temporality = 0
    is_monotonic: _Bool = False


class Metric(_Message):
    """A metric, whose data points are read one by one."""

    name: _Text = ""
    description: _Text = ""
    unit: _Text = ""
    gauge: Data | None = None
    sum: Data | None = None
    histogram: Data | None = None
    exponential_histogram: Data | None = None
    summary: Data | None = None
    metadata: list[KeyValue] = []


POINTS: Final[Mapping[str, type[Struct]]] = {
    "gauge": NumberDataPoint,
    "sum": NumberDataPoint,
    "histogram": HistogramDataPoint,
    "exponential_histogram": ExponentialHistogramDataPoint,
    "summary": SummaryDataPoint,
}


def snake(name: str) -> str:
    """A name of OTLP/JSON as protobuf has it."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _request(keys: tuple[str, str, str], resource: Any, scope: Any, text: Any) -> type[Struct]:
    """A request. Its items are read one by one, so that a bad one costs only itself."""
    resources, scopes, items = keys
    base, url = (_Message,), ("schema_url", text, "")
    scope_fields: list[Any] = [("scope", scope, None), (snake(items), list[Raw], []), url]
    scoped: Any = defstruct(scopes, scope_fields, bases=base)
    resource_fields: list[Any] = [
        ("resource", resource, None),
        (snake(scopes), list[scoped], []),
        url,
    ]
    outer: Any = defstruct(resources, resource_fields, bases=base)
    return defstruct("Request", [(snake(resources), list[outer], [])], bases=base)


_KEYS: Final = (
    ("resourceSpans", "scopeSpans", "spans"),
    ("resourceMetrics", "scopeMetrics", "metrics"),
    ("resourceLogs", "scopeLogs", "logRecords"),
)
REQUESTS: Final = {keys: _request(keys, Resource | None, Scope | None, _Text) for keys in _KEYS}
ENVELOPES: Final = {keys: _request(keys, Any, Any, Any) for keys in _KEYS}
"""Requests whose resources and scopes are not read yet, so that a bad one costs only its items."""


def present(message: Any, name: str) -> Any:
    """A field of a message of either kind; None where it is absent."""
    if isinstance(message, Struct) or message.HasField(name):
        return getattr(message, name)
    return None
