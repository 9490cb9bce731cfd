"""Values that are moved are the same, whether their attributes are known or only their text."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from observatory_storage import CopyWriter, StoragePool, jsonb
from observatory_storage.payloads import Moved, move_large
from tests.payloads.invariants import check_payloads, whole_rows
from tests.payloads.test_writing import LONG, pool_in
from tests.writers.helpers import a_span, empty

quick = settings(max_examples=200, derandomize=True, deadline=None, database=None)
words = st.sampled_from(["a", "é", "🎉", '"', "\\", "\n", " ", "word ", "null", "\u2028", "/"])
texts = st.builds(str.__mul__, words, st.integers(0, 400))
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), texts)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner),
        st.dictionaries(texts, inner, max_size=3),
        st.lists(st.dictionaries(texts, inner, max_size=2), max_size=3),
    ),
    max_leaves=6,
)


class Word(str):
    """Text of another type."""

    __slots__ = ()


def parts(moved: Moved | None) -> Any:
    """What was moved, regardless of how the rest is written."""
    if moved is None:
        return None
    return json.loads(moved.attributes[1:]), moved.values, json.loads(moved.digests[1:])


@quick
@given(st.dictionaries(texts, values, max_size=6), st.integers(0, 3000))
def test_known_attributes_are_moved_as_their_text(attributes: Any, threshold: int) -> None:
    (encoded,), odd = jsonb.encode_many([attributes], "attributes")
    if not odd and encoded is not None:
        known = move_large(encoded, threshold, attributes)
        assert parts(known) == parts(move_large(encoded, threshold))


@pytest.mark.parametrize(
    "attributes",
    [
        {1: LONG},
        {None: LONG, True: LONG},
        {Word("k"): LONG},
        {"wide": 2**70, "floats": [{"x": 1e-7}] * 60},
        {"wide": [2**70], "floats": [{"x": 1e-7}] * 60},
    ],
    ids=["numbers", "constants", "subclass", "integer", "list"],
)
def test_odd_attributes_are_moved_as_their_text(attributes: Any) -> None:
    encoded, repairs = jsonb.encode(attributes)
    assert repairs == 0
    moved = move_large(encoded, 100)
    assert moved is not None
    assert parts(move_large(encoded, 100, attributes)) == parts(moved)


ATTRIBUTES: Sequence[Any] = [
    {"prompt": LONG, "count": 3, "stop": ["a", "b"], "none": None, "share": 0.5},
    {"messages": [{"role": "user", "content": LONG}], "tools": [{"name": "t" * 300}] * 4},
    {"object": {"text": LONG}, "texts": ["not moved " * 50], "é": "é🎉" * 900, "small": "s" * 255},
    {"nul": "a\0b" + LONG, "nan": float("nan")},
    {"times": {"at": [datetime(2026, 1, 1, tzinfo=UTC)] * 60}, "prompt": LONG},
    {"short": True},
    {7: LONG, "small": 1},
]


@pytest.mark.parametrize(
    ("count", "first_large"), [(250, 0), (1700, 0), (450, 130), (1700, 1250), (450, 430)]
)
def test_a_stream_stores_what_rows_have(
    database_url: str, pool: StoragePool, count: int, first_large: int
) -> None:
    chance = random.Random(count)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    spans = [
        a_span(
            chance.randrange(1, count // 8),
            number,
            start_time=start + timedelta(seconds=number),
            end_time=start + timedelta(seconds=number + 1),
            attributes={
                **(ATTRIBUTES[number % len(ATTRIBUTES)] if number >= first_large else {}),
                "number": number,
            },
        )
        for number in range(1, count)
    ]
    CopyWriter(pool).write_spans(spans)
    expected = whole_rows(pool)
    empty(pool)
    with pool_in(database_url, "compressed") as compressed:
        # The first time makes the partitions of frames, without which nothing is streamed.
        CopyWriter(compressed).write_spans(spans)
        empty(compressed)
        CopyWriter(compressed).write_spans(spans)
        assert whole_rows(compressed) == expected
        assert check_payloads(compressed) >= (count - first_large) // 2
