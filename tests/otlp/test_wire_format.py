"""Attributes read from the bytes of protobuf equal those that protobuf reads."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from observatory_storage.errors import ValidationError
from observatory_storage.otlp.any_values import plain_map, plain_value
from observatory_storage.otlp.wire_format import as_json, lean_class, plain_any, plain_pairs
from tests.otlp.test_round_trip import QUICK

VALUES = st.recursive(
    st.one_of(
        st.text(max_size=300).filter(lambda text: "\x00" not in text),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(-1e15, 1e15),
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=200), inner),
    max_leaves=8,
)


def any_value(value: Any) -> AnyValue:
    made = AnyValue()
    if isinstance(value, bool):
        made.bool_value = value
    elif isinstance(value, str):
        made.string_value = value
    elif isinstance(value, int):
        made.int_value = value
    elif isinstance(value, float):
        made.double_value = value
    elif isinstance(value, list):
        made.array_value.SetInParent()
        made.array_value.values.extend(map(any_value, value))
    else:
        made.kvlist_value.SetInParent()
        pairs = [KeyValue(key=key, value=any_value(item)) for key, item in value.items()]
        made.kvlist_value.values.extend(pairs)
    return made


@QUICK
@given(st.dictionaries(st.text(max_size=60), VALUES, max_size=3))
def test_pairs_are_read_as_protobuf_reads_them(given_: dict[str, Any]) -> None:
    pairs = [KeyValue(key=key, value=any_value(value)) for key, value in given_.items()]
    expected = plain_map([as_json(pair) for pair in pairs], "attributes")
    try:
        plain = plain_pairs([pair.SerializeToString() for pair in pairs])
    except (ValueError, IndexError):
        return
    assert repr((plain, None)) == repr(expected)


@QUICK
@given(VALUES, st.data())
def test_changed_bytes_are_read_as_protobuf_reads_them_or_not_at_all(
    value: Any, data: st.DataObject
) -> None:
    content = bytearray(any_value(value).SerializeToString())
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 1))] = data.draw(st.binary(max_size=2))
    try:
        plain = plain_any(bytes(content))
    except (ValueError, IndexError):
        return
    parsed = AnyValue.FromString(bytes(content))
    assert repr((plain, None)) == repr(plain_value(as_json(parsed), "value"))


def test_texts_and_numbers_of_every_length_are_plain() -> None:
    for size in (0, 1, 127, 128, 16_383, 16_384, 70_000):
        value = {"text": "x" * size, "list": ["y" * size], "number": -size}
        assert plain_any(any_value(value).SerializeToString()) == value


def test_attributes_with_wrong_bytes_are_refused_by_name() -> None:
    span = lean_class(Span)()
    span.attributes.append(KeyValue(key="k").SerializeToString() + b"\x12\x03\x0a\x02\xff")
    with pytest.raises(ValidationError, match="attributes"):
        plain_map(span.attributes, "attributes")


@pytest.mark.parametrize("wrap", ["array_value", "kvlist_value"])
@pytest.mark.parametrize("levels", [51, 90, 5000])
def test_values_that_are_nested_too_deeply_are_refused(wrap: str, levels: int) -> None:
    content = AnyValue(string_value="x").SerializeToString()
    for _ in range(levels):
        inside = _field(1, content)
        content = _field(*((5, inside) if wrap == "array_value" else (6, _named(content))))
    attributes = lean_class(Span).FromString(_field(9, _field(1, b"deep") + _field(2, content)))
    with pytest.raises(ValidationError, match=r"nested more than 50 deep|must be attributes"):
        plain_map(attributes.attributes, "attributes")


def _named(value: bytes) -> bytes:
    return _field(1, _field(1, b"a") + _field(2, value))


def _field(number: int, content: bytes) -> bytes:
    """A field of a message, with its length as a varint."""
    size, rest = bytearray(), len(content)
    while rest > 0x7F:
        size.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([number << 3 | 2, *size, rest]) + content
