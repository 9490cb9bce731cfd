"""AnyValue as plain JSON, and its notes."""

from __future__ import annotations

import math
from typing import Any

import pytest

from observatory_storage.errors import ValidationError
from observatory_storage.otlp.any_values import any_value, key_values, plain_map, plain_value


def array(*values: Any) -> dict[str, Any]:
    return {"arrayValue": {"values": list(values)}}


def kvlist(*pairs: Any) -> dict[str, Any]:
    return {"kvlistValue": {"values": list(pairs)}}


@pytest.mark.parametrize(
    ("value", "plain", "note"),
    [
        ({"stringValue": "NaN"}, "NaN", None),
        ({"stringValue": ""}, "", None),
        ({"boolValue": False}, False, None),
        ({"intValue": "9223372036854775807"}, 2**63 - 1, None),
        ({"intValue": 7}, 7, None),
        ({"intValue": "7.0"}, 7, None),
        ({"intValue": "-1.2e3"}, -1200, None),
        ({"doubleValue": 1}, 1.0, None),
        ({"doubleValue": 0.0}, 0.0, None),
        ({"doubleValue": "NaN"}, "NaN", "double"),
        ({"doubleValue": "-Infinity"}, "-Infinity", "double"),
        ({"doubleValue": 1e16}, 1e16, "double"),
        ({"doubleValue": -0.0}, -0.0, "-0.0"),
        ({"bytesValue": "AQID"}, "AQID", "bytes"),
        ({"bytesValue": "_-8"}, "/+8=", "bytes"),
        ({"stringValueStrindex": 3}, 3, "strindex"),
        ({}, None, None),
        ({"newerValue": 1}, None, None),
        (None, None, "absent"),
        ({"arrayValue": {}}, [], None),
        ({"kvlistValue": {}}, {}, None),
        (array({}, {"intValue": 1}, {"bytesValue": "AQ=="}), [None, 1, "AQ=="], {"2": "bytes"}),
        (
            kvlist({"key": "a", "value": {"intValue": 1}}, {"key": "b"}),
            {"a": 1, "b": None},
            {"b": "absent"},
        ),
        (
            kvlist(
                {"key": "a", "value": {"intValue": 1}},
                {"key": "a", "value": {"doubleValue": 1e16}},
            ),
            {"a": 1e16},
            [{"key": "a", "value": 1}, {"key": "a", "value": 1e16, "note": "double"}],
        ),
    ],
)
def test_values_become_plain_json_with_notes(value: Any, plain: Any, note: Any) -> None:
    given, noted = plain_value(value, "value")
    assert (given, noted) == (plain, note)
    assert type(given) is type(plain)
    assert math.copysign(1, given) == math.copysign(1, plain) if isinstance(plain, float) else True


@pytest.mark.parametrize(
    "value",
    [
        5,
        "text",
        {"stringValue": 5},
        {"boolValue": 1},
        {"intValue": "1.5"},
        {"intValue": "1e-1"},
        {"intValue": "1e999"},
        {"intValue": "9223372036854775808"},
        {"intValue": "1_0"},
        {"intValue": "٣"},
        {"intValue": True},
        {"doubleValue": "five"},
        {"doubleValue": "1e999"},
        {"bytesValue": "!"},
        {"arrayValue": []},
        {"arrayValue": {"values": 1}},
        {"kvlistValue": {"values": [1]}},
        {"stringValue": "a", "intValue": 1},
    ],
)
def test_invalid_any_values_are_refused(value: Any) -> None:
    with pytest.raises(ValidationError, match="attributes"):
        plain_map([{"key": "k", "value": value}], "attributes")


def test_values_may_be_nested_as_deep_as_in_protobuf() -> None:
    value: dict[str, Any] = {"intValue": "1"}
    for _ in range(49):
        value = array(value)
    assert any_value(*plain_value(value, "value")) == value
    with pytest.raises(ValidationError, match="nested more than 50 deep"):
        plain_value(array(array(value)), "value")


def test_values_of_hand_written_rows_can_be_exported() -> None:
    assert key_values({"big": 2**70, "none": None, "at": [1.5, {"deep": True}]}) == [
        {"key": "big", "value": {"stringValue": str(2**70)}},
        {"key": "none", "value": {}},
        {
            "key": "at",
            "value": array(
                {"doubleValue": 1.5}, kvlist({"key": "deep", "value": {"boolValue": True}})
            ),
        },
    ]


def test_notes_that_do_not_match_the_value_are_ignored() -> None:
    assert any_value("redacted", {"inner": "bytes"}) == {"stringValue": "redacted"}
    assert any_value("redacted", "double") == {"stringValue": "redacted"}
    assert any_value(5, "bytes") == {"intValue": "5"}
