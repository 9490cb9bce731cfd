"""Which usage counts in trees of spans, read plainly, from the rules as docs/llm.md has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from tests.writers.helpers import Row

__all__ = ["SIDES", "around_calls", "calls_of", "cost_of", "has_usage"]

SIDES = ("prompt_tokens", "completion_tokens")


def has_usage(span: Row) -> bool:
    return bool(span.get("total_tokens") or span.get("total_cost_usd"))


def children(span: Row, spans: Sequence[Row]) -> list[Row]:
    return [
        other
        for other in spans
        if other["trace_id"] == span["trace_id"] and other.get("parent_span_id") == span["span_id"]
    ]


def descendants(span: Row, spans: Sequence[Row]) -> list[Row]:
    found = []
    for child in children(span, spans):
        found += [child, *descendants(child, spans)]
    return found


def nearest(span: Row, spans: Sequence[Row]) -> list[Row]:
    """The first spans with usage on each way down."""
    found = []
    for child in children(span, spans):
        found += [child] if has_usage(child) else nearest(child, spans)
    return found


def is_the_call_of(outer: Row, inner: Row) -> bool:
    named = outer.get("response_id")
    same_id = named is not None and named == inner.get("response_id")
    return same_id or all(outer[side] == inner[side] for side in SIDES)


def calls_of(spans: Sequence[Row]) -> list[list[Row]]:
    """The spans of each call."""
    calls = []
    for leaf in spans:
        if not has_usage(leaf) or any(map(has_usage, descendants(leaf, spans))):
            continue
        call = [leaf]
        while above := [
            span
            for span in spans
            if has_usage(span)
            and [id(inner) for inner in nearest(span, spans)] == [id(call[-1])]
            and is_the_call_of(span, call[-1])
        ]:
            call += above
        calls.append(call)
    joined: list[list[Row]] = []
    for call in calls:
        same = [other for other in joined if ids_of(other) & ids_of(call)]
        joined = [other for other in joined if other not in same]
        joined.append([span for one in (call, *same) for span in one])
    return joined


def ids_of(call: Iterable[Row]) -> set[str]:
    return {span["response_id"] for span in call if span.get("response_id") is not None}


def around_calls(spans: Sequence[Row], calls: Sequence[Sequence[Row]]) -> list[Row]:
    """The spans around calls whose cost counts, because no call inside them has one."""
    of_calls = {id(span) for call in calls for span in call}
    return [
        span
        for span in spans
        if span.get("total_cost_usd")
        and id(span) not in of_calls
        and not any(inner.get("total_cost_usd") for inner in descendants(span, spans))
    ]


def cost_of(call: Iterable[Row]) -> Decimal:
    """The cost of a call, as the spans that know it tell it: all the same, or zero."""
    return max((span.get("total_cost_usd") or Decimal(0) for span in call), default=Decimal(0))
