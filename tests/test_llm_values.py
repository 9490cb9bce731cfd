"""Values of the wrong type or size cost their own column only."""

from __future__ import annotations

from decimal import Decimal
from enum import Enum
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from observatory_storage.llm import facts
from observatory_storage.llm.aliases import NESTED, PLAIN
from observatory_storage.llm.dialects import ALIASES
from observatory_storage.llm.token_details import TOKEN_DETAILS

INT64 = 2**63 - 1


def read(
    attributes: dict[str, Any],
    *,
    name: str = "span",
    scope_name: str | None = None,
    resource: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return facts(attributes, name=name, scope_name=scope_name, resource_attributes=resource or {})


class Price(float, Enum):
    LOW = 0.25


@pytest.mark.parametrize("value", [np.float64(0.25), Price.LOW, 0.25, "0.25", Decimal("0.25")])
def test_costs_of_any_number_are_read_as_they_are_written(value: object) -> None:
    assert read({"llm.cost.total": value})["total_cost_usd"] == Decimal("0.25")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (INT64, INT64),
        ("12", 12),
        ("0", 0),
        (12.0, 12),
        (str(INT64), INT64),
        (-1, None),
        (INT64 + 1, None),
        (str(INT64 + 1), None),
        (10**400, None),
        ("9" * 5000, None),
        (12.5, None),
        (float("nan"), None),
        (float("inf"), None),
        (1e300, None),
        (True, None),
        (None, None),
        ("", None),
        ("-1", None),
        ("+1", None),
        (" 1", None),
        ("1_0", None),
        ("1.0", None),
        ("١٢", None),
        ("many", None),
        ([12], None),
        ({"value": 12}, None),
        (b"12", None),
    ],
)
def test_tokens(value: Any, expected: int | None) -> None:
    found = read({"gen_ai.request.model": "m", "gen_ai.usage.input_tokens": value})
    assert found.get("prompt_tokens") == expected
    assert found["model"] == "m"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (-0.0, "0.0"),
        (0.1, "0.1"),
        (1e-07, "1E-7"),
        (5e-324, "5E-324"),
        ("0.000123", "0.000123"),
        ("1e-7", "1E-7"),
        ("3", "3"),
        (999_999_999_999, "999999999999"),
        (10**12, None),
        (10**400, None),
        (1e300, None),
        ("1e99", None),
        ("1e-9999999", None),
        ("1" * 5000, None),
        (float("nan"), None),
        (float("inf"), None),
        (-0.01, None),
        (True, None),
        ("NaN", None),
        ("Infinity", None),
        ("$0.10", None),
        ("", None),
        ([0.1], None),
        (None, None),
    ],
)
def test_costs(value: Any, expected: str | None) -> None:
    cost = read({"gen_ai.request.model": "m", "llm.cost.total": value}).get("total_cost_usd")
    assert (None if cost is None else str(cost)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0.0),
        (12, 12.0),
        (12.5, 12.5),
        ("12.5", 12.5),
        (-1, None),
        (10**400, None),
        (1e300, None),
        (float("nan"), None),
        (float("inf"), None),
        (True, None),
        ("soon", None),
        ([], None),
    ],
)
def test_times_to_the_first_token(value: Any, expected: float | None) -> None:
    assert read({"ai.response.msToFirstChunk": value}).get("ttft_ms") == expected


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("u", True),
        ("é", True),
        ("a" * 1024, True),
        ("é" * 512, True),
        ("a" * 1025, False),
        ("é" * 513, False),
        ("", False),
        ("a\0b", False),
        ("\ud800", False),
        (7, False),
        (True, False),
        (None, False),
        (["u"], False),
    ],
)
def test_texts(value: Any, kept: bool) -> None:
    assert read({"user.id": value, "llm.model_name": "m"}) == (
        {"user_id": value, "model": "m"} if kept else {"model": "m"}
    )


KEYS = st.sampled_from([*PLAIN, *NESTED])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["12"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(
    attributes=st.dictionaries(KEYS | st.text(max_size=5), JSON, max_size=12),
    resource=st.dictionaries(st.sampled_from(ALIASES["environment"]), JSON),
    name=st.text(max_size=5),
    scope_name=st.none() | st.text(max_size=5),
)
def test_whatever_the_attributes_the_columns_can_be_stored(
    attributes: dict[str, Any], resource: dict[str, Any], name: str, scope_name: str | None
) -> None:
    found = facts(attributes, name=name, scope_name=scope_name, resource_attributes=resource)
    assert found.keys() <= {*ALIASES, "token_details"}
    for column, value in found.items():
        if column.endswith("_tokens"):
            assert type(value) is int
            assert 0 <= value <= INT64
        elif column.endswith("_usd"):
            assert type(value) is Decimal
            assert 0 <= value < 2 * 10**12
        elif column == "ttft_ms":
            assert type(value) is float
            assert 0 <= value < float("inf")
        elif column == "token_details":
            assert value.keys() <= TOKEN_DETAILS.keys()
            assert all(0 < count <= INT64 for count in value.values())
        else:
            assert "\0" not in value
            assert 0 < len(value.encode()) <= 1024
