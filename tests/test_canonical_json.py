"""The canonical text of JSON: equal values have one, whatever the order of their keys."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observatory_storage import jsonb
from tests.json_values import BIG, NAN, expected, plain_values, quick, same


def shuffled(value: Any, chance: random.Random) -> Any:
    if isinstance(value, dict):
        items = [(key, shuffled(item, chance)) for key, item in value.items()]
        chance.shuffle(items)
        return dict(items)
    return [shuffled(item, chance) for item in value] if isinstance(value, list) else value


@quick
@given(plain_values, st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(value: Any, chance: random.Random) -> None:
    repaired = expected(value)
    canonical = jsonb.canonical(repaired)
    assert jsonb.canonical(shuffled(repaired, chance)) == canonical
    # Repaired before or after: one text. And it is the value, in JSON that any reader takes.
    assert jsonb.canonical(value) == canonical
    assert same(json.loads(canonical), repaired)
    # Whichever encoder wrote it, and in whatever version.
    assert canonical == json.dumps(
        repaired, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [True, None]}, '{"a":[true,null],"b":1}'),
        (1, "1"),
        (1.0, "1.0"),
        (-0.0, "-0.0"),
        (0.0, "0.0"),
        (1e16, "1e+16"),
        (1e-7, "1e-07"),
        (0.0001, "0.0001"),
        (9999999999999998.0, "9999999999999998.0"),
        (NAN, '"NaN"'),
        ("NaN", '"NaN"'),
        ("\x00", '"\ufffd"'),
        (BIG, "1" + "0" * 30),
        ({"z": 1, "é": 2, "\U0001f600": 3, "\uffff": 4}, '{"z":1,"é":2,"\uffff":4,"\U0001f600":3}'),
        (datetime(2026, 1, 2, tzinfo=UTC), '"2026-01-02T00:00:00+00:00"'),
        ((1, ["a\n\x1f\x7f"]), '[1,["a\\n\\u001f\x7f"]]'),
    ],
)
def test_the_canonical_text(value: Any, text: str) -> None:
    assert jsonb.canonical(value) == text
    # Beside a value that takes the careful way it is written no differently.
    assert jsonb.canonical([NAN, value]) == f'["NaN",{text}]'


def test_numbers_of_different_types_differ() -> None:
    assert len({jsonb.canonical(value) for value in (1, 1.0, True, "1", [1])}) == 5
