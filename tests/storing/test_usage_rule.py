"""On which of the spans of a trace usage counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import permutations
from typing import Any

import pytest

from observatory_storage.storing.usage_once import (
    MOST_SPANS_OF_A_CALL,
    NO_USAGE,
    ReportingSpan,
    Usage,
    count_once,
)

START = datetime(2026, 3, 14, tzinfo=UTC)


def usage(prompt: int | None, completion: int | None, cost: Any = None, **more: Any) -> Usage:
    total = (prompt or 0) + (completion or 0)
    amount = None if cost is None else Decimal(cost)
    return Usage(prompt, completion, total, total_cost_usd=amount, **more)


def span(
    name: str, parent: str | None = None, told: Usage = NO_USAGE, *, at: int = 0, **given: Any
) -> ReportingSpan:
    columns = {"response_id": None, "operation": None, "has_model": False, "facts": 0, **given}
    trace = columns.pop("trace", 1)
    return ReportingSpan(trace, name, START + timedelta(seconds=at), 0, parent, told, **columns)


def counted(*spans: ReportingSpan) -> dict[str, Usage]:
    """What counts on each span, which does not depend on the order of the spans."""
    found = []
    for order in list(permutations(spans))[:24]:
        changed, _ = count_once(order)
        usages = (changed.get(index, each.usage) for index, each in enumerate(order))
        found.append(
            {
                f"{each.trace}{each.span_id}{each.start_time.second or ''}": told
                for each, told in zip(order, usages, strict=True)
            }
        )
    assert all(other == found[0] for other in found)
    return {key.removeprefix("1"): value for key, value in found[0].items()}


AGENT, FIRST, SECOND = usage(300, 30), usage(100, 10), usage(200, 20)


def test_an_agent_repeats_the_calls_inside_it_at_any_depth() -> None:
    found = counted(
        span("agent", None, AGENT),
        span("tool", "agent"),
        span("one", "tool", FIRST),
        span("two", "agent", SECOND),
    )
    assert found == {"agent": NO_USAGE, "tool": NO_USAGE, "one": FIRST, "two": SECOND}


def test_an_agent_whose_calls_are_not_recorded_keeps_its_usage() -> None:
    spans = (span("ask"), span("agent", "ask", AGENT), span("tool", "agent"))
    assert counted(*spans)["agent"] == AGENT


def test_counts_of_zero_hide_nothing() -> None:
    zero = usage(0, 0, 0)
    assert counted(span("agent", None, AGENT), span("one", "agent", zero)) == {
        "agent": AGENT,
        "one": zero,
    }


def test_a_cost_that_no_call_inside_knows_counts_on_the_agent_closest_to_them() -> None:
    priced = AGENT._replace(total_cost_usd=Decimal("0.41"))
    free = FIRST._replace(total_cost_usd=Decimal(0))
    outer, inner = span("run", None, priced), span("agent", "run", priced)
    found = counted(outer, inner, span("one", "agent", free), span("two", "agent", SECOND))
    assert found["agent"] == Usage(total_cost_usd=Decimal("0.41"))
    assert (found["run"], found["one"], found["two"]) == (NO_USAGE, free, SECOND)
    one = span("one", "agent", FIRST._replace(total_cost_usd=Decimal("0.1")))
    assert counted(outer, inner, one, span("two", "agent", SECOND))["agent"] == NO_USAGE


@pytest.mark.parametrize(
    ("outer", "inner", "counts_on"),
    [
        ({}, {}, "inner"),
        ({"facts": 2}, {"facts": 1}, "outer"),
        ({"has_model": True}, {"facts": 3}, "outer"),
        ({"has_model": True, "operation": "invoke_agent", "facts": 9}, {}, "outer"),
        (
            {"has_model": True, "operation": "invoke_agent", "facts": 9},
            {"has_model": True},
            "inner",
        ),
    ],
)
def test_of_two_spans_of_a_call_the_one_that_tells_more_counts(
    outer: dict[str, Any], inner: dict[str, Any], counts_on: str
) -> None:
    found = counted(span("outer", None, FIRST, **outer), span("inner", "outer", FIRST, **inner))
    other = {"outer": "inner", "inner": "outer"}[counts_on]
    assert found == {counts_on: FIRST, other: NO_USAGE}


def test_what_the_better_span_lacks_is_taken_from_the_other() -> None:
    details = {"cache_read": 5}
    outer = span("outer", None, usage(100, 10, "0.2", token_details=details))
    inner = span("inner", "outer", usage(100, None, 0), has_model=True)
    assert counted(outer, inner) == {
        "outer": NO_USAGE,
        "inner": usage(100, 10, "0.2", token_details=details),
    }


def test_spans_with_one_response_id_count_once_beside_each_other_and_over_traces() -> None:
    proxied = usage(90, 10)
    spans = (
        span("agent", None, AGENT, response_id="b"),
        span("one", "agent", FIRST, response_id="a", has_model=True),
        span("proxy", "agent", proxied, response_id="a"),
        span("two", "agent", SECOND, response_id="b"),
        span("sdk", None, SECOND, response_id="b", has_model=True, trace=2),
    )
    found = counted(*spans)
    assert {name: told for name, told in found.items() if told != NO_USAGE} == {
        "one": FIRST,
        "2sdk": SECOND,
    }


def test_nested_spans_with_one_response_id_are_one_call_whatever_they_count() -> None:
    cached = usage(160, 10)
    outer = span("outer", None, cached, response_id="a", has_model=True, facts=2)
    assert counted(outer, span("inner", "outer", FIRST, response_id="a", has_model=True)) == {
        "outer": cached,
        "inner": NO_USAGE,
    }


def test_an_id_of_too_many_spans_says_nothing() -> None:
    spans = [
        span(str(number), None, FIRST, response_id="mock")
        for number in range(MOST_SPANS_OF_A_CALL + 1)
    ]
    assert count_once(spans)[0] == {}
    assert len(count_once(spans[1:])[0]) == MOST_SPANS_OF_A_CALL - 1
    assert count_once(spans[1:], shared_ids={"mock"})[0] == {}


def test_parents_that_are_missing_or_elsewhere_are_none() -> None:
    spans = (
        span("one", "missing", FIRST),
        span("agent", None, AGENT, trace=2),
        span("two", "agent", SECOND),
    )
    assert counted(*spans) == {"one": FIRST, "2agent": AGENT, "two": SECOND}


def test_spans_on_a_circle_of_parents_are_not_inside_each_other() -> None:
    found = counted(
        span("a", "b", FIRST), span("b", "a", SECOND), span("c", "c", AGENT), span("d", "a", AGENT)
    )
    assert found == {"a": NO_USAGE, "b": SECOND, "c": AGENT, "d": AGENT}


def test_spans_that_share_an_id_are_beside_each_other_and_above_its_children() -> None:
    found = counted(
        span("same", None, AGENT, at=1), span("same", None, AGENT, at=2), span("one", "same", FIRST)
    )
    assert found == {"same1": NO_USAGE, "same2": NO_USAGE, "one": FIRST}
    alone = counted(span("same", None, FIRST, at=1), span("same", None, SECOND, at=2))
    assert alone == {"same1": FIRST, "same2": SECOND}
