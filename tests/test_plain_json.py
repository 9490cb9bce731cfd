"""Python values that JSON does not have become JSON as the documentation says, and never raise."""

from __future__ import annotations

import collections
import enum
import json
import subprocess
import sys
from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import numpy as np
import pandas as pd
import pytest
from pydantic import BaseModel, Field, SecretStr

from observatory_storage import jsonb
from observatory_storage.plain_json import PlainJson


class Colour(enum.Enum):
    RED = "red"
    MIXED = frozenset({"red", "blue"})


class Place(NamedTuple):
    city: str
    tags: set[str]


@dataclass
class Setting:
    category: Colour
    limit: np.float32
    files: list[Path] = field(default_factory=list)


class Message(BaseModel):
    role: str
    parts: list[Any] = []
    key: SecretStr = SecretStr("hidden")
    internal: str = Field(default="secret", exclude=True)


class Usage(msgspec.Struct):
    tokens: int
    details: frozenset[str] = frozenset()


class Failing(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class Silent:
    __slots__ = ()

    def __repr__(self) -> str:
        raise ValueError("no")


class NoText:
    __slots__ = ()

    def __repr__(self) -> str:
        return 5  # type: ignore[return-value]  # as badly written classes do


class Wordy:
    __slots__ = ()

    def __repr__(self) -> str:
        return "w" * 10**7


class Torn(Mapping[str, Any]):
    """A mapping that fails while it is read."""

    def __getitem__(self, key: str) -> Any:
        raise OSError

    def __iter__(self) -> Iterator[str]:
        return iter(["a"])

    def __len__(self) -> int:
        return 1


class Unset:
    __slots__ = ("x",)


KNOWN: list[tuple[Any, Any]] = [
    ({3, 1, 2}, [1, 2, 3]),
    (frozenset({"b", "a"}), ["a", "b"]),
    ({"b", 1, None}, ["b", 1, None]),
    ({"a": 1}.keys(), ["a"]),
    ({"a": 1}.values(), [1]),
    ({"a": {1}}.items(), [["a", [1]]]),
    (b"\xff\x00", "/wA="),
    (bytearray(b"a"), "YQ=="),
    (memoryview(b"a"), "YQ=="),
    (collections.deque([1, {2}], maxlen=5), [1, [2]]),
    (range(3), [0, 1, 2]),
    (array("d", [0.5]), [0.5]),
    (collections.UserString("text"), "text"),
    (collections.UserList([{1}]), [[1]]),
    (collections.ChainMap({"a": {1}}), {"a": [1]}),
    (collections.Counter("aab"), {"a": 2, "b": 1}),
    (Place("Bern", {"old"}), {"city": "Bern", "tags": ["old"]}),
    (PurePosixPath("/srv/data"), "/srv/data"),
    (timedelta(minutes=1), 60),
    (timedelta(milliseconds=-1), -0.001),
    (1 + 2j, "(1+2j)"),
    (Colour.MIXED, ["blue", "red"]),
    ([Colour.RED, {Colour.RED}], ["red", ["red"]]),
    (ValueError("bad key"), "ValueError: bad key"),
    (KeyError(), "KeyError"),
    (
        subprocess.TimeoutExpired("ls", 1),
        f"subprocess.TimeoutExpired: {subprocess.TimeoutExpired('ls', 1)}",
    ),
    (UUID, "uuid.UUID"),
    (
        Setting(Colour.RED, np.float32(0.5), [Path("a")]),
        {"category": "red", "limit": 0.5, "files": ["a"]},
    ),
    (
        Message(role="user", parts=[{"a": {1}}, Message(role="x")]),
        {
            "role": "user",
            "parts": [{"a": [1]}, {"role": "x", "parts": [], "key": "SecretStr('**********')"}],
            "key": "SecretStr('**********')",
        },
    ),
    (Usage(3, frozenset({"cached"})), {"tokens": 3, "details": ["cached"]}),
    (np.int64(2**40), 2**40),
    (np.uint8(3), 3),
    (np.bool_(True), True),
    (np.float16(0.5), 0.5),
    (np.longdouble(0.25), 0.25),
    (np.float32("nan"), "NaN"),
    (np.complex64(1j), "1j"),
    (np.str_("text"), "text"),
    (np.bytes_(b"a"), "YQ=="),
    (np.datetime64("2026-01-02T03:04:05.000000006"), "2026-01-02T03:04:05.000000006"),
    (np.timedelta64(1500, "ms"), 1.5),
    (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
    (np.array(7), 7),
    (np.array([0.5, float("inf")]), [0.5, "Infinity"]),
    (np.array([{1}, None], dtype=object), [[1], None]),
    (np.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")]), [[1, 2.5]]),
    (pd.Timestamp("2026-01-02"), "2026-01-02T00:00:00"),
    (pd.NaT, "NaT"),
    ({("a", 1): 1}, {'["a",1]': 1}),
    (
        {UUID(int=1): 1, Path("p"): 2, Colour.RED: 3, b"a": 4},
        {str(UUID(int=1)): 1, "p": 2, "red": 3, "YQ==": 4},
    ),
    (
        {np.int64(5): 1, Decimal("1.5"): 2, None: 3, True: 4},
        {"5": 1, "1.5": 2, "null": 3, "true": 4},
    ),
    (MappingProxyType({"deep": ({1},)}), {"deep": [[1]]}),
]
# What becomes of the repr of values that the table does not have.
UNKNOWN: list[tuple[Any, str]] = [
    (..., "Ellipsis"),
    (object(), "<object object>"),
    (len, "<built-in function len>"),
    (Silent(), "<Silent>"),
    (NoText(), "<NoText>"),
    (Wordy(), "w" * 1000 + "…"),
    (Failing(), "Failing()"),
    (Torn(), "<Torn>"),
    (pd.Series([1, 2]), repr(pd.Series([1, 2]))),
    (10**5000, "<integer of 16610 bits>"),
    (Decimal("1E+999999999"), "1E+999999999"),
]


def converted(value: Any) -> tuple[Any, int]:
    """The value as it is stored, and how many values were repaired."""
    encoded, repairs = jsonb.encode(value)
    return json.loads(encoded[1:]), repairs


@pytest.mark.parametrize(("value", "plain"), KNOWN)
def test_a_value_of_a_known_type_becomes_json(value: Any, plain: Any) -> None:
    stored, repairs = converted({"a": [value]})
    assert stored == {"a": [plain]}
    not_finite = str(plain).count("'NaN'") + str(plain).count("'Infinity'")
    secrets = str(plain).count("SecretStr")
    assert repairs == (1 if plain == "NaN" else not_finite + secrets)
    assert json.loads(jsonb.canonical(value)) == plain


@pytest.mark.parametrize(("value", "text"), UNKNOWN, ids=[type(v).__name__ for v, _ in UNKNOWN])
def test_an_unknown_value_becomes_its_repr_and_is_counted(value: Any, text: str) -> None:
    assert converted({"a": value, "b": 1}) == ({"a": text, "b": 1}, 1)
    assert converted([value, value]) == ([text, text], 2)
    # Without the address, so that an id that is computed from it is the same in each process.
    assert jsonb.canonical([value]) == json.dumps([text], ensure_ascii=False)


def test_a_generator_is_not_consumed() -> None:
    numbers = (number for number in range(3))
    stored, repairs = converted([numbers])
    assert stored[0].startswith("<generator object ")
    assert (repairs, list(numbers)) == (1, [0, 1, 2])


def test_an_attribute_that_is_not_set_costs_the_object_alone() -> None:
    @dataclass(slots=True)
    class Half:
        x: int = field(init=False)

    stored, repairs = converted({"a": Half(), "b": {1}})
    assert stored == {"a": "<Half>", "b": [1]}
    assert repairs == 1
    assert converted(Unset())[1] == 1


def test_keys_that_become_equal_are_counted() -> None:
    assert converted({2: "number", "2": "text"}) == ({"2": "text"}, 1)
    assert converted({None: 1, "null": 2, Colour.RED: 3, "red": 4}) == ({"null": 2, "red": 4}, 2)


def test_what_contains_itself_is_cut_where_it_begins_anew() -> None:
    own_list: list[Any] = [1]
    own_list += [own_list, own_list]
    assert converted(own_list) == ([1, *["<list that contains itself>"] * 2], 2)
    own_dict: dict[str, Any] = {}
    own_dict["self"] = {"again": [own_dict]}
    assert converted(own_dict)[0] == {"self": {"again": ["<dict that contains itself>"]}}
    message = Message(role="user")
    message.parts.append(message)
    stored, repairs = converted({"m": message, "n": 1})
    assert stored["n"] == 1
    assert repairs > 0

    @dataclass
    class Node:
        parent: Any
        children: list[Any]

    root = Node(None, [])
    root.children = [Node(root, []), Node(root, [])]
    child = {"parent": "<Node that contains itself>", "children": []}
    assert converted(root) == ({"parent": None, "children": [child, child]}, 2)


def test_the_same_value_twice_does_not_contain_itself() -> None:
    shared = [{1}]
    assert converted({"a": shared, "b": [shared, shared]}) == (
        {"a": [[1]], "b": [[[1]], [[1]]]},
        0,
    )


def nested(levels: int, make: Callable[[Any], Any], bottom: Any = "bottom") -> Any:
    value = bottom
    for _ in range(levels):
        value = make(value)
    return value


@pytest.mark.parametrize("levels", [1000, 100_000])
@pytest.mark.parametrize("make", [lambda v: [v], lambda v: {"a": v}, lambda v: {"b": [v]}])
def test_what_nests_too_deeply_is_cut(levels: int, make: Callable[[Any], Any]) -> None:
    encoded, repairs = jsonb.encode({"a": nested(levels, make), "b": 1})
    assert repairs == 1
    assert encoded.endswith(b'"b":1}')
    assert b"nested too deeply>" in encoded
    assert jsonb.canonical(nested(levels, make)) == jsonb.canonical(nested(levels, make))


def test_deep_values_are_cut_when_the_callers_stack_is_nearly_full() -> None:
    def deeper(levels: int) -> tuple[bytes, int]:
        return (
            jsonb.encode({"a": nested(350, lambda v: [v], {1}), "b": 1})
            if not levels
            else deeper(levels - 1)
        )

    encoded, repairs = deeper(sys.getrecursionlimit() - 250)
    assert encoded.startswith(b'\x01{"a":[[[[')
    assert encoded.endswith(b'"b":1}')
    assert repairs > 0


def test_objects_that_all_refer_to_each_other_have_an_end() -> None:
    @dataclass
    class Node:
        others: list[Any] = field(default_factory=list)

    nodes = [Node() for _ in range(30)]
    for node in nodes:
        node.others = nodes
    conversion = PlainJson()
    conversion.of(nodes)
    assert conversion.repairs > 0


def test_numpy_and_pydantic_are_not_imported_for_a_value() -> None:
    program = """
import sys
from observatory_storage.plain_json import PlainJson
assert PlainJson().of({"a": {1}, "b": object()}) == {"a": [1], "b": "<object object>"}
assert "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
