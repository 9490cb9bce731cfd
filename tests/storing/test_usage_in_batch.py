"""Spans written together get the usage that deciding their whole traces gives them."""

from __future__ import annotations

from decimal import Decimal
from random import Random
from typing import Any

import pytest

from observatory_storage.rows import Row, prepare_span
from observatory_storage.storing.usage_in_batch import FACTS, USAGE_FIELDS, counted_rows
from observatory_storage.storing.usage_once import ReportingSpan, Usage, count_once
from tests.writers.helpers import a_span, span_id

MOST_SPANS = 14
COST = Decimal("0.25")
# What the spans of a tree may have: costs, tokens, models, response ids, traces, and sources of
# costs.
KINDS: list[list[list[Any]]] = [
    [[None, Decimal(0)], [None, None, COST], [COST]],
    [[10], [None, 0, 10, 20]],
    [[None], [None, None, "gpt-4o"]],
    [[None], [*[None] * 10, "one", "two"]],
    [[1], [*[1] * 9, 2]],
    [[None], ["told", "computed"], ["computed"]],
]


def prepared(number: int, parent: int | None, trace: int = 1, **given: Any) -> Row:
    above = None if parent is None else span_id(parent)
    return prepare_span(a_span(trace, number, parent_span_id=above, **given))


def usage_of(row: Row) -> Usage:
    named = row.as_dict()
    return Usage(*(named[column] for column in USAGE_FIELDS))


def reporting(row: Row) -> ReportingSpan:
    named = row.as_dict()
    return ReportingSpan(
        trace=named["trace_id"],
        span_id=named["span_id"],
        start_time=named["start_time"],
        start_ns=named["start_ns"],
        parent_span_id=named["parent_span_id"],
        usage=usage_of(row),
        response_id=named["response_id"],
        operation=named["operation"],
        has_model=named["model"] is not None,
        facts=sum(named[column] is not None for column in FACTS),
    )


def check(rows: list[Row]) -> list[Usage]:
    decided, _ = count_once(list(map(reporting, rows)))
    expected = [decided.get(index, usage_of(row)) for index, row in enumerate(rows)]
    counted = counted_rows(rows)
    assert list(map(usage_of, counted)) == expected
    for index, (row, before) in enumerate(zip(counted, rows, strict=True)):
        reported = {
            column: str(value) if column.endswith("_usd") else value
            for column, value in usage_of(before)._asdict().items()
            if value is not None and column != "cost_source"
        }
        named, source = row.as_dict(), usage_of(before).cost_source
        assert named["reported_usage"] == (reported if index in decided else None)
        assert named["reported_cost_source"] == (source if index in decided else None)
    return expected


def tree(chance: Random) -> list[Row]:
    """Spans that mostly report usage; often, each agent has several calls inside."""
    costs, tokens, models, responses, traces, sources = map(chance.choice, KINDS)
    inside = chance.choice([[0, 2, 3], [0, 1, 2]])
    rows: list[Row] = []
    parents: list[int | None] = [None, 99]
    while parents and len(rows) < MOST_SPANS:
        number, parent = len(rows) + 1, parents.pop(0)
        known = [*costs, COST] if parent is None else costs
        columns = {
            "prompt_tokens": chance.choice(tokens),
            "total_cost_usd": chance.choice(known),
            "cost_source": chance.choice(sources),
            "model": chance.choice(models),
            "response_id": chance.choice(responses),
        }
        rows.append(prepared(number, parent, chance.choice(traces), **columns))
        parents += [number] * (3 if parent is None else chance.choice(inside))
    return chance.sample(rows, len(rows))


@pytest.mark.parametrize("seed", range(20))
def test_spans_of_any_trees_count_as_their_whole_traces_do(seed: int) -> None:
    chance = Random(seed)
    for _ in range(20):
        check(tree(chance))


def test_an_agent_repeats_tokens_and_cost_of_the_calls_inside_it() -> None:
    calls = [
        prepared(number, 1, prompt_tokens=number, total_cost_usd=COST) for number in range(2, 11)
    ]
    agent = prepared(1, None, prompt_tokens=54, total_cost_usd=9 * COST)
    counted, *others = check([agent, *calls])
    assert counted == Usage()
    assert others == list(map(usage_of, calls))


def test_a_cost_that_no_call_inside_has_counts_on_the_agent() -> None:
    calls = [prepared(number, 1, prompt_tokens=number) for number in (2, 3)]
    counted, *_ = check([prepared(1, None, prompt_tokens=5, total_cost_usd=COST), *calls])
    assert counted == Usage(total_cost_usd=COST, cost_source="told")


def test_a_cost_repeats_that_of_a_call_below_agents_without_a_cost() -> None:
    rows = [prepared(1, None, prompt_tokens=30, total_cost_usd=2 * COST)]
    rows += [prepared(number, 1, prompt_tokens=15) for number in (2, 3)]
    rows += [prepared(number, 2, prompt_tokens=number, total_cost_usd=COST) for number in (4, 5)]
    assert check(rows)[:2] == [Usage(), Usage()]


def computed(number: int, parent: int | None, cost: Any = COST, **given: Any) -> Row:
    return prepared(number, parent, total_cost_usd=cost, cost_source="computed", **given)


def test_a_cost_that_was_told_of_a_call_replaces_the_computed_one() -> None:
    inner = computed(2, 1, prompt_tokens=10, model="m", user_id="u", provider="p")
    outer = prepared(1, None, prompt_tokens=10, total_cost_usd=3 * COST)
    counts, repeats = check([inner, outer])
    assert (counts.total_cost_usd, counts.cost_source) == (3 * COST, "told")
    assert (counts.total_tokens, repeats) == (10, Usage())


def test_a_computed_cost_does_not_decide_on_which_span_a_call_counts() -> None:
    plain = prepared(2, 1, prompt_tokens=10)
    repeats, counts = check([computed(1, None, prompt_tokens=10), plain])
    assert repeats == Usage()
    assert (counts.total_tokens, counts.total_cost_usd, counts.cost_source) == (
        *(10, COST),
        "computed",
    )


def test_the_cost_of_a_call_is_computed_where_its_details_are_known() -> None:
    plain = computed(2, 1, prompt_tokens=10, model="m", user_id="u", provider="p")
    details = {"prompt_cache_read": 9}
    outer = computed(1, None, COST / 2, prompt_tokens=10, token_details=details)
    counts, _ = check([plain, outer])
    assert counts.total_cost_usd == COST / 2


def test_a_cost_told_around_calls_covers_their_computed_costs() -> None:
    agent = prepared(1, None, prompt_tokens=30, total_cost_usd=9 * COST)
    calls = [computed(number, 1, prompt_tokens=number) for number in (2, 3)]
    around, *inside = check([agent, *calls])
    assert around == Usage(total_cost_usd=9 * COST, cost_source="told")
    assert [(usage.total_tokens, usage.total_cost_usd) for usage in inside] == [
        (2, None),
        (3, None),
    ]


def test_computed_costs_of_calls_count_beside_one_that_was_told() -> None:
    agent = prepared(1, None, prompt_tokens=30, total_cost_usd=9 * COST)
    calls = [computed(2, 1, prompt_tokens=2), prepared(3, 1, prompt_tokens=3, total_cost_usd=COST)]
    around, *inside = check([agent, *calls])
    assert around == Usage()
    assert [usage.total_cost_usd for usage in inside] == [COST, COST]


def test_an_agent_does_not_add_a_computed_cost_to_those_of_its_calls() -> None:
    calls = [prepared(number, 1, prompt_tokens=number) for number in (2, 3)]
    around, *inside = check([computed(1, None, prompt_tokens=5), *calls])
    assert around == Usage()
    assert [usage.total_cost_usd for usage in inside] == [None, None]
