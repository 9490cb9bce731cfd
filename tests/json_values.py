"""Values of any kind that are given for JSON, and what jsonb is expected to have of them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st

NAN, INFINITY = float("nan"), float("inf")
BIG = 10**30
quick = settings(max_examples=200, derandomize=True, deadline=None, database=None)


class Colour(enum.Enum):
    RED = "red"
    NOTHING = NAN


class Word(enum.StrEnum):
    OK = "ok"


class Level(enum.IntEnum):
    HIGH = 3


class Number(float):
    """A class of its own, as numpy has."""


class Text(str):
    __slots__ = ()


def expected(value: Any) -> Any:
    """What the documentation says of a value, written down independently of the code."""
    match value:
        case None | bool():
            return value
        case enum.Enum():
            return expected(value.value)
        case str():
            # UTF-16 joins the pairs; what stays alone is replaced.
            units = value.replace("\x00", "\ufffd").encode("utf-16-le", "surrogatepass")
            return units.decode("utf-16-le", "replace")
        case int():
            return value
        case float():
            names = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
            return names.get(str(value), value)
        case Decimal():
            if not value.is_finite():
                return "NaN" if value.is_nan() else expected(float(value))
            return int(value) if value == value.to_integral_value() else float(value)
        case Mapping():
            return {expected_key(key): expected(item) for key, item in value.items()}
        case list() | tuple():
            return [expected(item) for item in value]
        case UUID():
            return str(value)
        case _:
            return value.isoformat()


def expected_key(key: Any) -> str:
    if key is None:
        return "null"
    if isinstance(key, bool):
        return "true" if key else "false"
    return str(expected(key))


def same(read: Any, wanted: Any) -> bool:
    """Whether jsonb gave back the value. Its numbers are numeric: 1e16 comes back an integer."""
    if isinstance(wanted, float):
        return isinstance(read, (int, float)) and float(read) == wanted
    if type(read) is not type(wanted):
        return False
    if isinstance(wanted, dict):
        return read.keys() == wanted.keys() and all(same(read[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return len(read) == len(wanted) and all(map(same, read, wanted))
    return bool(read == wanted)


text = st.text(
    st.one_of(st.characters(codec=None), st.sampled_from('\x00\ud83d\ude00"\\\n')), max_size=8
)
offsets = st.integers(-86399, 86399).map(lambda seconds: timezone(timedelta(seconds=seconds)))
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    text,
    st.sampled_from(["null", "\\u0000", *Colour, *Word, *Level, 1e16, -0.0, 5e-324]),
    st.decimals(allow_nan=True, places=3),
    st.uuids(),
    st.datetimes(),
    st.datetimes(timezones=offsets),
    st.dates(),
    st.times(),
)
keys = st.one_of(
    text, st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False, allow_infinity=False)
)
any_values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(text, inner, max_size=4),
        st.dictionaries(keys, inner, max_size=2),
    ),
    max_leaves=8,
)
plain_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), text),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(text, inner, max_size=4)),
    max_leaves=8,
)
