"""Generates requests from the descriptors of OTLP's messages, so that no field is forgotten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

from tests.otlp.otlp import REQUESTS, is_repeated

Draw = Callable[[st.SearchStrategy[Any]], Any]

# Times that exceed microseconds, 53 bits and 63 bits; the smallest and the largest time.
_TIMES = st.sampled_from(
    [0, 1, 999, 1000, 1544712660300000000, 1544712660300000001, 2**63 + 7, 2**64 - 1]
)
_DOUBLES = st.one_of(
    st.sampled_from(
        [0.0, -0.0, 1.0, 1e15, 1e16, -1e16, 2.0**53, 1e22, 5e-324, 1.7976931348623157e308]
    ),
    st.floats(),
)
_TEXTS = st.one_of(
    st.sampled_from(["", "NaN", "Infinity", "1", "AQID", "a.b", "é😀", "x" * 1500, "ü" * 700]),
    st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=8),
)
_T = FieldDescriptor
_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    _T.TYPE_STRING: _TEXTS,
    _T.TYPE_BOOL: st.booleans(),
    _T.TYPE_DOUBLE: _DOUBLES,
    _T.TYPE_BYTES: st.binary(max_size=6),
    _T.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    _T.TYPE_SINT32: st.integers(-(2**31), 2**31 - 1),
    _T.TYPE_UINT32: st.integers(0, 2**32 - 1),
    _T.TYPE_FIXED32: st.integers(0, 2**32 - 1),
    _T.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    _T.TYPE_SFIXED64: st.sampled_from([0, 1, -1, 2**53 + 1, 2**63 - 1, -(2**63)]),
    _T.TYPE_UINT64: st.one_of(st.integers(0, 5), st.integers(2**63 - 2, 2**64 - 1)),
    _T.TYPE_FIXED64: st.one_of(st.integers(0, 5), st.integers(2**63 - 2, 2**64 - 1)),
}


class _Filler:
    """Fills a message from its descriptor. Ids are counted, so that all items differ."""

    def __init__(self, draw: Draw, *, every_field: bool) -> None:
        self.draw = draw
        self.every_field = every_field
        self.counted = 0

    def fill(self, message: Any, depth: int = 0) -> None:
        descriptor: Descriptor = message.DESCRIPTOR
        chosen = {
            oneof.name: self.draw(st.sampled_from([*oneof.fields, None]))
            for oneof in descriptor.oneofs
            if len(oneof.fields) > 1
        }
        for field in descriptor.fields:
            oneof = field.containing_oneof
            if oneof is not None and oneof.name in chosen:
                if chosen[oneof.name] is not field:
                    continue
            elif not self.every_field and not self.draw(st.booleans()):
                continue
            self.set(message, field, depth)
        correct = _CORRECTIONS.get(descriptor.name)
        if correct is not None:
            correct(self, message)

    def set(self, message: Any, field: FieldDescriptor, depth: int) -> None:
        if field.message_type is not None:
            self.set_messages(message, field, depth)
        elif is_repeated(field):
            scalars = self.scalars(field)
            values = self.draw(st.lists(scalars, min_size=int(self.every_field), max_size=3))
            getattr(message, field.name).extend(values)
        else:
            setattr(message, field.name, self.draw(self.scalars(field)))

    def set_messages(self, message: Any, field: FieldDescriptor, depth: int) -> None:
        nested = depth + (message.DESCRIPTOR.name == "AnyValue")
        if not is_repeated(field):
            inside = getattr(message, field.name)
            inside.SetInParent()
            self.fill(inside, nested)
            return
        if nested > 2:
            return
        for _ in range(self.draw(st.integers(int(self.every_field), 2))):
            self.fill(getattr(message, field.name).add(), nested)

    def scalars(self, field: FieldDescriptor) -> st.SearchStrategy[Any]:
        if field.enum_type is not None:
            return st.sampled_from([*(value.number for value in field.enum_type.values), 77, -1])
        if field.name.endswith("time_unix_nano"):
            return _TIMES
        return _SCALARS[field.type]

    def next_id(self, length: int) -> bytes:
        self.counted += 1
        return self.counted.to_bytes(length, "big")


# Rules for stored items that a descriptor does not contain.


def _span(filler: _Filler, span: Any) -> None:
    span.trace_id, span.span_id = filler.next_id(16), filler.next_id(8)
    span.parent_span_id = filler.draw(st.sampled_from([b"", bytes(8), b"\xffparents"]))
    if span.end_time_unix_nano and span.end_time_unix_nano < span.start_time_unix_nano:
        span.start_time_unix_nano, span.end_time_unix_nano = (
            span.end_time_unix_nano,
            span.start_time_unix_nano,
        )
    if not span.start_time_unix_nano and not span.end_time_unix_nano:
        span.end_time_unix_nano = 1


def _log_record(filler: _Filler, record: Any) -> None:
    record.trace_id = filler.draw(st.sampled_from([b"", bytes(16), b"\xffsixteen bytes.."]))[:16]
    record.span_id = filler.draw(st.sampled_from([b"", bytes(8), b"\xfeeight.."]))
    # Without any time, it would be another record each time that it is ingested.
    if not record.time_unix_nano and not record.observed_time_unix_nano:
        record.observed_time_unix_nano = 1


def _metric(filler: _Filler, metric: Any) -> None:
    # Metrics with the same name, type, resource and scope are one, with one description.
    filler.counted += 1
    metric.name = f"{metric.name}{filler.counted}"[-1500:]
    kind = metric.WhichOneof("data")
    # Data points of a metric that differ only in their value are one.
    for place, point in enumerate(getattr(metric, kind).data_points if kind else ()):
        point.start_time_unix_nano, point.time_unix_nano = sorted(
            (point.start_time_unix_nano, point.time_unix_nano or 1)
        )
        pair = point.attributes.add(key="place")
        pair.value.int_value = place


def _bounded(_filler: _Filler, point: Any) -> None:
    if point.HasField("min") and point.HasField("max") and point.min > point.max:
        point.min, point.max = point.max, point.min


def _quantile(filler: _Filler, entry: Any) -> None:
    entry.quantile = filler.draw(st.sampled_from([0.0, -0.0, 0.5, 0.99, 1.0]))


_CORRECTIONS: dict[str, Callable[[_Filler, Any], None]] = {
    "Span": _span,
    "LogRecord": _log_record,
    "Metric": _metric,
    "HistogramDataPoint": _bounded,
    "ExponentialHistogramDataPoint": _bounded,
    "ValueAtQuantile": _quantile,
}


@st.composite
def requests(draw: Draw, signal: str, *, every_field: bool = False) -> Message:
    """A request of the signal. With `every_field` it sets all fields, except within a oneof."""
    message = REQUESTS[signal]()
    _Filler(draw, every_field=every_field).fill(message)
    return message


def used_fields(message: Message) -> set[str]:
    """The full names of all the fields that are set anywhere in a message."""
    found: set[str] = set()
    for field, value in message.ListFields():
        found.add(field.full_name)
        if field.message_type is not None:
            for inside in value if is_repeated(field) else (value,):
                found |= used_fields(inside)
    return found


def all_fields(descriptor: Any, seen: set[str] | None = None) -> set[str]:
    """The full names of all the fields that a message of this type can have, at any depth."""
    seen = set() if seen is None else seen
    for field in descriptor.fields:
        if field.full_name not in seen:
            seen.add(field.full_name)
            if field.message_type is not None:
                all_fields(field.message_type, seen)
    return seen
