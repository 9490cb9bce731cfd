"""JSON: whatever is given is repaired as the rules say, taken by jsonb and read back so."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal, localcontext
from types import MappingProxyType
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import orjson
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from observatory_storage import jsonb
from tests.json_values import (
    BIG,
    INFINITY,
    NAN,
    Colour,
    Level,
    Number,
    Text,
    Word,
    any_values,
    expected,
    quick,
    same,
)

REPAIRS: list[tuple[Any, Any]] = [
    (NAN, "NaN"),
    (INFINITY, "Infinity"),
    (-INFINITY, "-Infinity"),
    ({"a": [1.5, NAN, None, "null"]}, {"a": [1.5, "NaN", None, "null"]}),
    ({"a": Colour.NOTHING}, {"a": "NaN"}),
    ("a\x00b", "a\ufffdb"),
    ({"\x00": "\x00\x00"}, {"\ufffd": "\ufffd\ufffd"}),
    ("\ud800", "\ufffd"),
    ("\udc00\ud800a", "\ufffd\ufffda"),
    ("\ud83d\ude00", "\N{GRINNING FACE}"),
    ({"\ud83d": "\ude00"}, {"\ufffd": "\ufffd"}),
    ("\\u0000 is how it is written", "\\u0000 is how it is written"),
    (BIG, BIG),
    ([-BIG, 2**63, 2**64 - 1, 2**64, -(2**63) - 1], [-BIG, 2**63, 2**64 - 1, 2**64, -(2**63) - 1]),
    ({"a": BIG, "b": NAN, "c": "\x00"}, {"a": BIG, "b": "NaN", "c": "\ufffd"}),
    ({1: 1, 2.5: 2, None: 4}, {"1": 1, "2.5": 2, "null": 4}),
    ({False: 1, BIG: 2, NAN: 3}, {"false": 1, str(BIG): 2, "NaN": 3}),
    (Decimal("1.50"), 1.5),
    (Decimal("3.0"), 3),
    (Decimal(BIG), BIG),
    (Decimal("1E+400"), 10**400),
    (Decimal("1E+400") + 1, 10**400),
    (Decimal("-0.5"), -0.5),
    (Decimal("1E-400"), 0.0),
    (Decimal("NaN"), "NaN"),
    (Decimal("sNaN"), "NaN"),
    (Decimal("-Infinity"), "-Infinity"),
    (Colour.RED, "red"),
    ([Word.OK, Level.HIGH], ["ok", 3]),
    ({Word.OK: Text("x\x00")}, {"ok": "x\ufffd"}),
    ([Number(1.5), Number("nan")], [1.5, "NaN"]),
    ((1, (2,)), [1, [2]]),
    (MappingProxyType({"a": MappingProxyType({})}), {"a": {}}),
    (UUID(int=10), "00000000-0000-0000-0000-00000000000a"),
    (datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), "2026-01-02T03:04:05.000006+00:00"),
    (datetime(2026, 1, 2), "2026-01-02T00:00:00"),  # noqa: DTZ001 - without a zone is the case
    (date(2026, 1, 2), "2026-01-02"),
    (time(1, 2, 3), "01:02:03"),
    (time(1, 2, 3, 10_000), "01:02:03.010000"),
    (datetime(1900, 1, 1, tzinfo=ZoneInfo("Europe/Amsterdam")), "1900-01-01T00:00:00+00:19:32"),
    (time(1, 2, tzinfo=UTC), "01:02:00+00:00"),
    (
        {"a": BIG, "b": datetime(2026, 1, 2, tzinfo=UTC)},
        {"a": BIG, "b": "2026-01-02T00:00:00+00:00"},
    ),
]
CLEAN: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        2**63 - 1,
        -(2**63),
        1.5,
        "",
        "null",
        {},
        [],
        "é\U0001f600\x7f\x1f",
    ),
    {"a": {"b": [None, {"c": '\n\t"\\/'}]}},
    {"": None, "null": "null", "text": "the word null, and \\u0000 spelt out"},
    [5e-324, 1.7976931348623157e308, 1e16, 1e-5, 0.1, 123456789.123456789],
]


@pytest.mark.parametrize(("value", "repaired"), REPAIRS)
def test_values_that_jsonb_cannot_store_are_repaired(value: Any, repaired: Any) -> None:
    read = json.loads(jsonb.dumps(value))
    assert same(read, repaired)
    assert list(read) == list(repaired) if isinstance(read, dict) else True


@pytest.mark.parametrize("value", CLEAN)
def test_clean_values_are_encoded_unchanged_by_orjson(value: Any) -> None:
    assert jsonb.encode(value) == (b"\x01" + orjson.dumps(value), 0)
    assert json.loads(jsonb.dumps(value)) == value


def test_what_nests_deeper_than_the_fast_encoder_goes_is_written() -> None:
    value: Any = NAN
    for _ in range(300):
        value = [value]
    assert jsonb.dumps(value) == b"[" * 300 + b'"NaN"' + b"]" * 300
    assert jsonb.canonical(value) == jsonb.dumps(value).decode()


def test_the_precision_of_the_callers_context_does_not_matter() -> None:
    with localcontext() as context:
        context.prec = 2
        assert jsonb.dumps(Decimal(2**60 + 1)) == str(2**60 + 1).encode()


def test_the_binary_form() -> None:
    encoded, repairs = jsonb.encode({"a": 1})
    assert (encoded, repairs) == (b'\x01{"a":1}', 0)
    assert jsonb.decode(jsonb.encode({"a": [BIG, None]})[0]) == {"a": [BIG, None]}
    assert jsonb.decode(None) is None
    assert jsonb.encode({}) == (jsonb.EMPTY_OBJECT, 0)
    assert jsonb.encode([]) == (jsonb.EMPTY_ARRAY, 0)


def test_encoding_tells_how_many_values_it_repaired() -> None:
    assert jsonb.encode({"a": NAN, "b": "\x00", "\ud800": BIG})[1] == 3
    # What the careful path takes without changing it is not counted.
    assert jsonb.encode({"a": BIG, "b": UUID(int=1), "c": "clean"})[1] == 0


def test_many_values_are_encoded_as_each_by_itself() -> None:
    shared = {"shared": [1, None]}
    clean: list[list[Any]] = [[{"a": 1}, None, {"b": [BIG]}, {"c": None}], [shared] * 5, [None] * 3]
    for values in clean:
        encoded = [None if value is None else jsonb.encode(value)[0] for value in values]
        assert jsonb.encode_many(values, "attributes") == (encoded, [])
    odd: list[tuple[list[Any], list[int]]] = [
        ([{"b": 1}, {"a": "\x00"}, {}, {"a": NAN}], [1, 3]),
        ([None, {"a": Decimal(1)}, {"a": {1}}, {"a": None}], [2]),
        ([{"a": NAN}] * 3, [0, 1, 2]),
        ([shared, {"a": object}, shared, shared], [1]),
    ]
    for values, places in odd:
        encoded = [None if value is None else jsonb.encode(value)[0] for value in values]
        found, odd_places = jsonb.encode_many(values, "attributes")
        assert odd_places == places
        for index, (one, other) in enumerate(zip(found, encoded, strict=True)):
            assert one == other or index in places


LONG = "words and null " * 300


@pytest.mark.parametrize(
    "value",
    [
        {"a": LONG, "b": 1, "c": True, "d": 1e-7, "e": ["x", "\\"]},
        {"a": LONG, "b": "\\u0000 \\"},
        {"a": LONG, "b": None},
        {"a": LONG, "b": [1, None]},
        {"a": LONG, "b": {"c": BIG}},
        LONG,
        [LONG],
    ],
)
def test_long_values_without_faults_are_encoded_as_they_are(value: Any) -> None:
    assert json.loads(jsonb.dumps(value)) == value
    assert jsonb.encode_many([value], "attributes") == ([b"\x01" + jsonb.dumps(value)], [])


@pytest.mark.parametrize(
    ("value", "repaired"),
    [
        ({"a": LONG + "\0"}, {"a": LONG + "\ufffd"}),
        ({"a": LONG, "b\0": 1}, {"a": LONG, "b\ufffd": 1}),
        ({"a": LONG, "b": ["x", "\0"]}, {"a": LONG, "b": ["x", "\ufffd"]}),
        ({"a": LONG, "b": {"c": "\0"}}, {"a": LONG, "b": {"c": "\ufffd"}}),
        ({"a": LONG, "b": NAN}, {"a": LONG, "b": "NaN"}),
        ({"a": LONG, "b": [-INFINITY]}, {"a": LONG, "b": ["-Infinity"]}),
        (LONG + "\0", LONG + "\ufffd"),
    ],
)
def test_faults_of_long_values_are_repaired(value: Any, repaired: Any) -> None:
    assert json.loads(jsonb.dumps(value)) == repaired
    encoded, odd = jsonb.encode_many([{"a": 1}, value], "attributes")
    assert odd == [1]
    assert encoded[1] is None or json.loads(encoded[1][1:]) == repaired


@quick
@given(st.text(st.characters(codec=None)))
def test_clean_text_is_what_postgresql_can_hold(value: str) -> None:
    cleaned = jsonb.clean_text(value)
    assert cleaned == expected(value)
    assert "\x00" not in cleaned
    cleaned.encode()
    assert jsonb.clean_text(cleaned) is cleaned or jsonb.clean_text(cleaned) == cleaned


def test_whatever_is_given_is_taken_by_jsonb_and_read_back(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:

        def read_back(values: list[bytes]) -> list[Any]:
            # Binary, as COPY sends it; back as the text that the server makes of it.
            query = "SELECT v::text FROM unnest(%b::jsonb[]) WITH ORDINALITY AS t (v, n) ORDER BY n"
            wrapped = [psycopg.types.json.Jsonb(v, dumps=lambda v: v) for v in values]
            return [json.loads(text) for (text,) in connection.execute(query, [wrapped])]

        given_values = [value for value, _ in REPAIRS] + CLEAN
        wanted = [repaired for _, repaired in REPAIRS] + CLEAN
        for read, want in zip(read_back(list(map(jsonb.dumps, given_values))), wanted, strict=True):
            assert same(read, want)

        @quick
        @given(st.lists(any_values, min_size=1, max_size=3))
        def check(some: list[Any]) -> None:
            encoded = [jsonb.dumps(value) for value in some]
            for value, read in zip(some, read_back(encoded), strict=True):
                assert same(read, expected(value))

        check()
