"""Counts usage once among spans that are written together, before they are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final

from observatory_storage import jsonb
from observatory_storage.rows import Row
from observatory_storage.storing.usage_once import (
    COMPUTED,
    NO_USAGE,
    ReportingSpan,
    Usage,
    count_once,
)
from observatory_storage.tables import SPANS

__all__ = ["FACTS", "REPORT", "USAGE_FIELDS", "counted_rows", "reported_json"]

USAGE_FIELDS: Final = Usage._fields
"""The columns of usage."""
REPORT: Final = ("reported_usage", "reported_cost_source")
"""The columns of what a span reports, where those of usage contain something else."""
_COSTS: Final = frozenset(column for column in USAGE_FIELDS if column.endswith("_usd"))
FACTS: Final = (
    *("user_id", "session_id", "provider", "model", "response_model", "ttft_ms", "finish_reason"),
    *("agent_name", "prompt_name"),
)
"""The other facts of a call, of which the preferred one of its spans tells the most."""

_TRACE_ID, _SPAN_ID, _PARENT, _TOKENS, _COST, _COST_SOURCE, _RESPONSE_ID = SPANS.positions(
    *("trace_id", "span_id", "parent_span_id", "total_tokens", "total_cost_usd", "cost_source"),
    "response_id",
)
_REPORTED, _REPORTED_COST_SOURCE = SPANS.positions(*REPORT)
_ids_of = itemgetter(_SPAN_ID, _PARENT)
_place_of = itemgetter(*SPANS.positions("span_id", "start_time", "start_ns", "parent_span_id"))
_call_of = itemgetter(*SPANS.positions("response_id", "operation", "model"))
_usage_of = itemgetter(*SPANS.positions(*USAGE_FIELDS))
_facts_of = itemgetter(*SPANS.positions(*FACTS))
# Deeper spans are decided with their whole trace.
_MOST_STEPS: Final = 50
_USAGE_POSITIONS: Final = SPANS.positions(*USAGE_FIELDS)


def counted_rows(rows: Sequence[Row]) -> Sequence[Row]:
    """The spans, with their usage where it counts among them.

    A span whose usage counts elsewhere, or that takes some from others, keeps what it reports in
    `reported_usage`.

    Args:
        rows: prepared spans, no two of one key.
    """
    spans = [row[1] for row in rows]
    reporting = [span for span in spans if span[_TOKENS] or span[_COST]]
    if len(reporting) < 2:
        return rows
    around, traces = _look(spans, reporting)
    if not around and not traces:
        return rows
    changed = list(rows)
    positions = {span[_SPAN_ID]: index for index, span in enumerate(spans)} if around else {}
    for span_id in around:
        index = positions[span_id]
        changed[index] = rows[index]._replace(values=_with_usage(spans[index], NO_USAGE))
    indexes = [index for index, span in enumerate(spans) if span[_TRACE_ID].int in traces]
    counted, _ = count_once([_reporting_span(spans[index]) for index in indexes])
    for place, usage in counted.items():
        index = indexes[place]
        changed[index] = rows[index]._replace(values=_with_usage(spans[index], usage))
    return changed


def _look(spans: Sequence[Any], reporting: Sequence[Any]) -> tuple[list[str], set[int]]:
    """Find what has to be decided, in the fewest steps: this runs for every span that is written.

    Returns the ids of spans that merely repeat the usage of several spans inside them, as those of
    agents do; a cost is repeated if one of these spans has a cost. And the other traces in which
    usage may count once too often.
    """
    parents = dict(map(_ids_of, spans))
    numbers = [span[_TRACE_ID].int for span in spans]
    if len(parents) < len(spans):  # spans share ids, and may have several parents
        return [], {span[_TRACE_ID].int for span in reporting}
    trace_of = dict(zip(parents, numbers, strict=True))
    by_id = {span[_SPAN_ID]: span for span in reporting}
    inside: dict[str, int] = {}
    around_costs: set[str] = set()
    traces: set[int] = set()
    for span_id, span in by_id.items():
        trace, parent = trace_of[span_id], parents[span_id]
        steps = _MOST_STEPS
        while parent is not None and trace_of.get(parent) == trace and steps:
            if parent in by_id:
                inside[parent] = inside.get(parent, 0) + 1
                if span[_COST] and span[_COST_SOURCE] != COMPUTED:
                    around_costs.add(parent)
                break
            parent, steps = parents[parent], steps - 1
        if not steps:
            traces.add(trace)
    for span_id, count in inside.items():
        # A span deeper inside may have the cost that none of the nearest has.
        around = by_id[span_id]
        is_cost_told = around[_COST] and around[_COST_SOURCE] != COMPUTED
        is_cost_open = is_cost_told and span_id not in around_costs
        if count == 1 or is_cost_open or _is_on_a_circle(span_id, parents):
            traces.add(trace_of[span_id])
    ids = [span[_RESPONSE_ID] for span in reporting if span[_RESPONSE_ID] is not None]
    if len(ids) > len(set(ids)):
        times = Counter(ids)
        traces.update(
            span[_TRACE_ID].int for span in reporting if times.get(span[_RESPONSE_ID], 0) > 1
        )
    return [span_id for span_id in inside if trace_of[span_id] not in traces], traces


def _is_on_a_circle(span_id: str, parents: dict[str, str | None]) -> bool:
    parent = parents[span_id]
    for _ in range(_MOST_STEPS):
        if parent is None:
            return False
        parent = parents.get(parent)
    return True  # or very deep


def _reporting_span(span: Sequence[Any]) -> ReportingSpan:
    span_id, start, start_ns, parent = _place_of(span)
    response_id, operation, model = _call_of(span)
    facts = len(FACTS) - _facts_of(span).count(None)
    return ReportingSpan(
        *(span[_TRACE_ID].int, span_id, start, start_ns, parent, Usage(*_usage_of(span))),
        *(response_id, operation, model is not None, facts),
    )


def _with_usage(span: Sequence[Any], usage: Usage) -> tuple[Any, ...]:
    values = list(span)
    for position, value in zip(_USAGE_POSITIONS, usage, strict=True):
        values[position] = value
    reported = Usage(*_usage_of(span))
    details = jsonb.decode(reported.token_details)
    values[_REPORTED], _ = jsonb.encode(reported_json(reported._replace(token_details=details)))
    values[_REPORTED_COST_SOURCE] = reported.cost_source
    return tuple(values)


def reported_json(usage: Usage) -> dict[str, Any]:
    """The value of `reported_usage`: what is known by column, costs as text with all digits.

    The source of the cost has a column of its own: earlier versions of the package, which may still
    write, read no other keys.
    """
    return {
        column: format(value, "f") if column in _COSTS else value
        for column, value in zip(USAGE_FIELDS, usage, strict=True)
        if value is not None and column != "cost_source"
    }
