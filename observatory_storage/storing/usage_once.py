"""Decides on which spans usage counts, so that each token counts once.

Usage counts on a span none of whose descendants reports usage. Spans above it repeat the usage of
others, except for a cost that none of their descendants knows.

Several spans may report one call. Such spans are:

* a span and the only nearest descendant that reports usage, if both tell the same tokens or the
  same response id;
* spans with the same response id, in one trace or in several.

Their usage counts on the span that tells the most, which takes what it lacks from the others.

A cost that is computed from prices is no report. It counts only where no cost was told of the call,
nor around it, and it decides nothing.

The decision depends only on what spans report, never on an earlier decision. So it can be made
again at any time, and does not depend on the order of arrival.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

__all__ = [
    "COMPUTED",
    "MOST_SPANS_OF_A_CALL",
    "NO_USAGE",
    "ReportingSpan",
    "Usage",
    "calls_of",
    "count_once",
]

MOST_SPANS_OF_A_CALL: Final = 32
"""A response id that more spans have does not identify a call. Models in tests often have one id
for all responses."""

# Operations that contain model calls, but are none.
_AROUND_CALLS: Final = frozenset(
    {"create_agent", "execute_tool", "invoke_agent", "invoke_workflow", "plan"}
)


class Usage(NamedTuple):
    """The usage of a span; None for what is not known."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_cost_usd: Decimal | None = None
    completion_cost_usd: Decimal | None = None
    total_cost_usd: Decimal | None = None
    token_details: Any = None
    cost_source: str | None = None

    @property
    def is_reported(self) -> bool:
        """Whether there is any usage. Counts of zero do not hide the usage of other spans."""
        return bool(self.total_tokens or self.total_cost_usd)

    @property
    def tells_cost(self) -> bool:
        """Whether a cost was told. A cost of zero for tokens says that the price is not known."""
        return bool(self.total_cost_usd) and self.cost_source != COMPUTED


COMPUTED: Final = "computed"
"""The source of a cost that is computed from prices. All other costs were told."""
NO_USAGE: Final = Usage()


class ReportingSpan(NamedTuple):
    """What the decision needs to know of a span, also of one without usage.

    Attributes:
        trace: the id of its trace.
        span_id, start_time, start_ns: the rest of its key. Spans of two services may share an id.
        parent_span_id: the id of its parent, which need not exist.
        usage: what it reports.
        response_id: the provider's id of the response.
        operation: what it does.
        facts: the number of other facts of the call that it tells.
        has_model: whether it names a model.
    """

    trace: Any
    span_id: str
    start_time: datetime
    start_ns: int
    parent_span_id: str | None
    usage: Usage
    response_id: str | None
    operation: str | None
    has_model: bool
    facts: int


def count_once(
    spans: Sequence[ReportingSpan], *, shared_ids: Collection[str] = ()
) -> tuple[dict[int, Usage], list[list[int]]]:
    """Decide which usage of these spans counts.

    Args:
        spans: all spans of some traces.
        shared_ids: response ids that are known to belong to more than one call.

    Returns:
        By the index of a span: the usage that counts on it, if that differs from what it reports.
        And the calls: the indexes of the spans that report one, the one on which it counts first.
    """
    by_trace: defaultdict[Hashable, list[int]] = defaultdict(list)
    for index, span in enumerate(spans):
        by_trace[span.trace].append(index)
    nested: list[list[int]] = []
    counted: dict[int, Usage] = {}
    covered: set[int] = set()
    for indexes in by_trace.values():
        around = len(counted)
        nested += _calls_in_trace(spans, indexes, shared_ids, counted)
        if len(counted) > around:
            covered |= _below_told_costs(spans, indexes, counted)
    calls = calls_of(spans, nested, shared_ids)
    for first, *others in calls:
        usage = spans[first].usage
        for other in others:
            usage = _completed(usage, spans[other].usage)
            counted[other] = NO_USAGE
        if usage.cost_source == COMPUTED and not covered.isdisjoint((first, *others)):
            usage = usage._replace(**_costs(NO_USAGE))
        if usage != spans[first].usage:
            counted[first] = usage
    return counted, calls


def _below_told_costs(
    spans: Sequence[ReportingSpan], indexes: Sequence[int], counted: dict[int, Usage]
) -> set[int]:
    """The spans of a trace that have computed costs, and are below one whose told cost counts."""
    told = {
        spans[index].span_id
        for index in indexes
        if index in counted and counted[index].total_cost_usd
    }
    computed = [index for index in indexes if spans[index].usage.cost_source == COMPUTED]
    if not told or not computed:
        return set()
    parents = {spans[index].span_id: spans[index].parent_span_id for index in indexes}
    found = set()
    for index in computed:
        above, seen = spans[index].parent_span_id, set[str]()
        while above is not None and above not in seen and above not in told:
            seen.add(above)
            above = parents.get(above)
        if above in told:
            found.add(index)
    return found


def _calls_in_trace(
    spans: Sequence[ReportingSpan],
    indexes: Iterable[int],
    shared_ids: Collection[str],
    counted: dict[int, Usage],
) -> list[list[int]]:
    """The calls of a trace by its structure: for each, its spans from the inner to the outer.

    For spans that repeat the usage of several calls, adds to `counted` what counts on them.
    """
    sharing: defaultdict[str, list[int]] = defaultdict(list)
    for index in indexes:
        sharing[spans[index].span_id].append(index)
    parents: dict[str, set[str]] = {
        span_id: {
            parent
            for parent in (spans[index].parent_span_id for index in same)
            if parent is not None and parent in sharing
        }
        for span_id, same in sharing.items()
    }
    open_children = dict.fromkeys(sharing, 0)
    for of_one in parents.values():
        for parent in of_one:
            open_children[parent] += 1
    # Up to two of the nearest reporting spans below a span id: none, one or several.
    below: defaultdict[str, set[int]] = defaultdict(set)
    above_cost: set[str] = set()
    call_of: dict[int, list[int]] = {}
    calls: list[list[int]] = []

    def visit(span_id: str) -> None:
        nearest, has_cost = below[span_id], span_id in above_cost
        own = [index for index in sharing[span_id] if spans[index].usage.is_reported]
        for index in own:
            usage = spans[index].usage
            inner = next(iter(nearest)) if len(nearest) == 1 else None
            if not nearest:
                call_of[index] = [index]
                calls.append(call_of[index])
            elif inner in call_of and _report_one_call(spans[index], spans[inner], shared_ids):
                call_of[inner].append(index)
                call_of[index] = call_of[inner]
            elif usage.tells_cost and not has_cost:
                counted[index] = NO_USAGE._replace(**_costs(usage))
            else:
                counted[index] = NO_USAGE
        has_cost = has_cost or any(spans[index].usage.tells_cost for index in own)
        for parent in parents[span_id]:
            below[parent].update((own or sorted(nearest))[:2])
            if has_cost:
                above_cost.add(parent)

    leaves = [span_id for span_id, children in open_children.items() if not children]
    while leaves:
        span_id = leaves.pop()
        visit(span_id)
        for parent in parents.pop(span_id):
            open_children[parent] -= 1
            if not open_children[parent]:
                leaves.append(parent)
    # What is left is on a circle of parents: none of these spans is below another.
    circle, parents = list(parents), defaultdict(set)
    for span_id in circle:
        visit(span_id)
    return calls


def calls_of(
    spans: Sequence[ReportingSpan], nested: list[list[int]], shared_ids: Collection[str]
) -> list[list[int]]:
    """Join the calls that have a response id in common, and put the best span of each first."""
    named: defaultdict[str, set[int]] = defaultdict(set)
    for number, call in enumerate(nested):
        for index in call:
            response_id = spans[index].response_id
            if response_id is not None and response_id not in shared_ids:
                named[response_id].add(number)
    joined = list(range(len(nested)))  # by its number, a call that it is joined with, or itself

    def root(number: int) -> int:
        while joined[number] != number:
            joined[number] = joined[joined[number]]
            number = joined[number]
        return number

    for numbers in named.values():
        if 1 < len(numbers) <= MOST_SPANS_OF_A_CALL:
            first, *others = sorted(numbers)
            for other in others:
                joined[root(other)] = root(first)
    members: defaultdict[int, list[tuple[Any, ...]]] = defaultdict(list)
    for number, call in enumerate(nested):
        for depth, index in enumerate(call):
            members[root(number)].append((*_preference(spans[index], depth), index))
    return [[member[-1] for member in sorted(call)] for call in members.values()]


def _preference(span: ReportingSpan, depth: int) -> tuple[Any, ...]:
    """The sort key of the spans of a call: the one on which it counts first."""
    is_call = span.has_model and span.operation not in _AROUND_CALLS
    facts = span.facts + span.usage.tells_cost + (span.usage.token_details is not None)
    return not is_call, -facts, depth, span.start_time, span.start_ns, span.trace, span.span_id


def _report_one_call(
    outer: ReportingSpan, inner: ReportingSpan, shared_ids: Collection[str]
) -> bool:
    """Whether a span and the only reporting span inside it report one call."""
    if outer.response_id is not None and outer.response_id == inner.response_id:
        return outer.response_id not in shared_ids
    one, other = outer.usage, inner.usage
    known = [(a, b) for a, b in zip(one[:2], other[:2], strict=True) if None not in (a, b)]
    if not known:
        known = [(one.total_tokens, other.total_tokens)]
    return all(a == b for a, b in known) and any(a for a, _ in known)


def _completed(usage: Usage, other: Usage) -> Usage:
    """The usage with what another span knows in addition of the same call."""
    prompt, completion, total = usage[:3]
    if not total:
        prompt, completion, total = other[:3]
    elif prompt is None or completion is None:
        was_sum = total == (prompt or 0) + (completion or 0)
        prompt = other.prompt_tokens if prompt is None else prompt
        completion = other.completion_tokens if completion is None else completion
        total = (prompt or 0) + (completion or 0) if was_sum else total
    costs = _costs(other if _knows_better(usage, other) else usage)
    details = other.token_details if usage.token_details is None else usage.token_details
    return Usage(prompt, completion, total, **costs, token_details=details)


def _knows_better(usage: Usage, other: Usage) -> bool:
    """Whether the cost of a call is what the other span says."""
    if usage.tells_cost or other.tells_cost:
        return not usage.tells_cost
    if other.cost_source != COMPUTED:
        return False
    # Of two computed costs, the one that knows how many tokens were cached, and on which side.
    return (
        usage.cost_source != COMPUTED
        or not usage.total_tokens
        or (usage.token_details is None and other.token_details is not None)
        or (None in usage[:2] and None not in other[:2])
    )


def _costs(usage: Usage) -> dict[str, Any]:
    return {
        "cost_source": usage.cost_source,
        "prompt_cost_usd": usage.prompt_cost_usd,
        "completion_cost_usd": usage.completion_cost_usd,
        "total_cost_usd": usage.total_cost_usd,
    }
