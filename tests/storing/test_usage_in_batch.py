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
# What the spans of a tree may have: costs, tokens, models, response ids and traces.
KINDS: list[list[list[Any]]] = [
    [[None, Decimal(0)], [None, None, COST], [COST]],
    [[10], [None, 0, 10, 20]],
    [[None], [None, None, "gpt-4o"]],
    [[None], [*[None] * 10, "one", "two"]],
    [[1], [*[1] * 9, 2]],
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
            if value is not None
        }
        assert row.as_dict()["reported_usage"] == (reported if index in decided else None)
    return expected


def tree(chance: Random) -> list[Row]:
    """Spans that mostly report usage; often, each agent has several calls inside."""
    costs, tokens, models, responses, traces = map(chance.choice, KINDS)
    inside = chance.choice([[0, 2, 3], [0, 1, 2]])
    rows: list[Row] = []
    parents: list[int | None] = [None, 99]
    while parents and len(rows) < MOST_SPANS:
        number, parent = len(rows) + 1, parents.pop(0)
        known = [*costs, COST] if parent is None else costs
        columns = {
            "prompt_tokens": chance.choice(tokens),
            "total_cost_usd": chance.choice(known),
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
    assert counted == Usage(total_cost_usd=COST)


def test_a_cost_repeats_that_of_a_call_below_agents_without_a_cost() -> None:
    rows = [prepared(1, None, prompt_tokens=30, total_cost_usd=2 * COST)]
    rows += [prepared(number, 1, prompt_tokens=15) for number in (2, 3)]
    rows += [prepared(number, 2, prompt_tokens=number, total_cost_usd=COST) for number in (4, 5)]
    assert check(rows)[:2] == [Usage(), Usage()]
