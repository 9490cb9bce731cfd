"""Which attribute gives an LLM column, and what follows from others."""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Context, Decimal, Inexact, localcontext
from pathlib import Path
from typing import Any

import pytest

from observatory_storage.llm.aliases import holding
from observatory_storage.llm.dialects import (
    ALIASES,
    ALIASES_OF_SCOPE,
    IN_SECONDS,
)
from observatory_storage.llm.readers import read_text, reader_of
from observatory_storage.llm.token_details import TOKEN_DETAILS
from observatory_storage.tables import TABLES
from tests.test_llm import read

DOCS = Path(__file__).parent.parent / "docs" / "llm.md"
INT64 = 2**63 - 1


@pytest.mark.parametrize(
    ("column", "aliases"), [(column, aliases) for column, aliases in ALIASES.items()], ids=ALIASES
)
def test_the_first_usable_attribute_wins_whatever_the_order(
    column: str, aliases: tuple[str, ...]
) -> None:
    text = reader_of(column) is read_text
    values: list[Any] = [f"value-{rank}" if text else rank + 1 for rank in range(len(aliases))]
    for first, alias in enumerate(aliases):
        usable = merged(zip(aliases[first:], values[first:], strict=True))
        unusable = merged((alias, False) for alias in aliases[:first])
        wanted = values[first]
        if alias in IN_SECONDS:
            wanted *= 1000
        both = deeply(unusable, usable)
        for attributes in (both, dict(reversed(both.items()))):
            assert read(attributes)[column] == wanted


def merged(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The attributes of a span in which each alias has its value."""
    attributes: dict[str, Any] = {}
    for alias, value in pairs:
        attributes = deeply(attributes, holding(alias, value))
    return attributes


def deeply(first: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    both = dict(first)
    for key, value in then.items():
        inner = both.get(key)
        both[key] = deeply(inner, value) if isinstance(inner, dict) else value
    return both


def test_no_attribute_stands_for_two_columns() -> None:
    keys = [key for aliases in (ALIASES | TOKEN_DETAILS).values() for key in aliases]
    assert len(keys) == len(set(keys))
    assert set(ALIASES) <= set(TABLES["trace_spans"].columns)


def test_the_answering_model_counts_only_where_no_request_is_known() -> None:
    answered = {"gen_ai.response.model": "gpt-4-0613"}
    assert read(answered) == {"model": "gpt-4-0613", "response_model": "gpt-4-0613"}
    assert read({"llm.request.model": "gpt-4"} | answered) == {
        "model": "gpt-4",
        "response_model": "gpt-4-0613",
    }


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


def test_the_reference_lists_the_tables_of_aliases_in_their_order() -> None:
    tables = DOCS.read_text().partition("## Names of one instrumentation")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", tables, re.MULTILINE)
    listed = {column: tuple(re.findall(r"`([^`]+)`", keys)) for column, keys in rows}
    assert listed == ALIASES | TOKEN_DETAILS


def test_the_reference_lists_what_scopes_call_by_plain_names() -> None:
    section = DOCS.read_text().partition("## Names of one instrumentation")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| (.+) \|$", section, re.MULTILINE)
    listed = {
        scope: {column: key for key, column in re.findall(r"`([^`]+)` \((\w+)\)", names)}
        for scope, names in rows
    }
    assert listed == ALIASES_OF_SCOPE
