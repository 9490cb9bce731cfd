"""Which attribute gives an LLM column, and what follows from others."""

from __future__ import annotations

import re
from decimal import Context, Decimal, Inexact, localcontext
from pathlib import Path
from typing import Any

import pytest

from observatory_storage.llm.dialects import ALIASES
from observatory_storage.llm.readers import read_text, reader_of
from observatory_storage.tables import TABLES
from tests.test_llm import read

DOCS = Path(__file__).parent.parent / "docs" / "llm.md"
INT64 = 2**63 - 1


@pytest.mark.parametrize(
    ("column", "keys"), [(column, keys) for column, keys in ALIASES.items()], ids=list(ALIASES)
)
def test_the_first_usable_attribute_wins_whatever_the_order(
    column: str, keys: tuple[str, ...]
) -> None:
    text = reader_of(column) is read_text
    values: dict[str, Any] = {
        key: f"value-{rank}" if text else rank + 1 for rank, key in enumerate(keys)
    }
    for first in range(len(keys)):
        usable = {key: values[key] for key in keys[first:]}
        unusable = dict.fromkeys(keys[:first], False)
        expected = values[keys[first]]
        if keys[first] == "gen_ai.response.time_to_first_chunk":
            expected *= 1000
        for attributes in (unusable | usable, dict(reversed((usable | unusable).items()))):
            assert read(attributes)[column] == expected


def test_no_attribute_stands_for_two_columns() -> None:
    keys = [key for aliases in ALIASES.values() for key in aliases]
    assert len(keys) == len(set(keys))
    assert set(ALIASES) <= set(TABLES["trace_spans"].columns)


def test_the_answering_model_counts_only_where_no_request_is_known() -> None:
    assert read({"gen_ai.response.model": "gpt-4-0613"}) == {"model": "gpt-4-0613"}
    asked = {"gen_ai.response.model": "gpt-4-0613", "llm.request.model": "gpt-4"}
    assert read(asked) == {"model": "gpt-4"}


def test_the_environment_of_a_span_takes_precedence_over_its_resource() -> None:
    resource = {"deployment.environment": "staging"}
    assert read({}, resource=resource) == {"environment": "staging"}
    assert read({}, resource=resource | {"deployment.environment.name": "production"}) == {
        "environment": "production"
    }
    assert read({}, resource=resource | {"deployment.environment.name": 1}) == {
        "environment": "staging"
    }
    assert read({"deployment.environment": "test"}, resource=resource) == {"environment": "test"}
    assert read({"deployment.environment": ""}, resource=resource) == {"environment": "staging"}


@pytest.mark.parametrize(
    ("prompt", "completion", "total", "expected"),
    [
        (3, 4, None, 7),
        (0, 0, None, 0),
        (None, 4, None, 4),
        (3, None, None, 3),
        (3, 4, 9, 9),
        (3, 4, 0, 0),
        (None, None, 9, 9),
        (INT64, 1, None, None),
        (None, None, None, None),
    ],
)
def test_totals_are_sums_only_where_absent(
    prompt: int | None, completion: int | None, total: int | None, expected: int | None
) -> None:
    tokens = {
        "gen_ai.usage.input_tokens": prompt,
        "gen_ai.usage.output_tokens": completion,
        "gen_ai.usage.total_tokens": total,
    }
    assert read(tokens).get("total_tokens") == expected
    costs = {"llm.cost.prompt": prompt, "llm.cost.completion": completion, "llm.cost.total": total}
    if INT64 not in (prompt, completion):
        assert read(costs).get("total_cost_usd") == expected


def test_costs_add_up_as_decimals() -> None:
    found = read({"llm.cost.prompt": 0.1, "llm.cost.completion": 0.2})
    assert found["total_cost_usd"] == Decimal("0.3")
    digits = {
        "llm.cost.prompt": "999999999999.000000000000000000000000000001",
        "llm.cost.completion": 1e-60,
    }
    with localcontext(Context(traps=[Inexact])):
        assert read(digits)["total_cost_usd"] == Decimal(
            "999999999999.000000000000000000000000000001000000000000000000000000000001"
        )


def test_the_reference_lists_the_table_of_aliases_in_its_order() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", DOCS.read_text(), re.MULTILINE)
    listed = {column: tuple(re.findall(r"`([^`]+)`", keys)) for column, keys in rows}
    assert listed == ALIASES
