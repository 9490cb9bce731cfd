"""Counts usage once among spans that are written together, before they are written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final

from observatory_storage import jsonb
from observatory_storage.rows import Row
from observatory_storage.storing.usage_once import ReportingSpan, Usage, count_once
from observatory_storage.tables import SPANS

__all__ = ["FACTS", "USAGE", "counted_rows", "reported_json"]

USAGE: Final = Usage._fields
"""The columns of usage."""
FACTS: Final = (
    *("user_id", "session_id", "provider", "model", "response_model", "ttft_ms", "finish_reason"),
    *("agent_name", "prompt_name"),
)
"""The other facts of a call, of which the preferred one of its spans tells the most."""

_TRACE_ID, _SPAN_ID, _PARENT, _TOKENS, _COST, _RESPONSE_ID, _REPORTED = SPANS.positions(
    *("trace_id", "span_id", "parent_span_id", "total_tokens", "total_cost_usd", "response_id"),
    "reported_usage",
)
_ids_of = itemgetter(_SPAN_ID, _PARENT)
_place_of = itemgetter(*SPANS.positions("span_id", "start_time", "start_ns", "parent_span_id"))
_call_of = itemgetter(*SPANS.positions("response_id", "operation", "model"))
_usage_of = itemgetter(*SPANS.positions(*USAGE))
_facts_of = itemgetter(*SPANS.positions(*FACTS))
_USAGE_POSITIONS: Final = SPANS.positions(*USAGE)


def counted_rows(rows: Sequence[Row]) -> Sequence[Row]:
    """The spans, with their usage where it counts among them.

    A span whose usage counts elsewhere, or that takes some from others, keeps what it reports in
    `reported_usage`.

    Args:
        rows: prepared spans, no two of one key.
    """
    spans = [row[1] for row in rows]
    reporting = [span for span in spans if span[_TOKENS] or span[_COST]]
    if len(reporting) < 2 or not (traces := _traces_to_decide(spans, reporting)):
        return rows
    indexes = [index for index, span in enumerate(spans) if span[_TRACE_ID].int in traces]
    counted, _ = count_once([_reporting_span(spans[index]) for index in indexes])
    changed = list(rows)
    for place, usage in counted.items():
        index = indexes[place]
        changed[index] = rows[index]._replace(values=_with_usage(spans[index], usage))
    return changed


def _traces_to_decide(spans: Sequence[Any], reporting: Sequence[Any]) -> set[int]:
    """The traces in which a reporting span may be above another, or share its response id.

    This runs for every batch, so it only looks for these traces, in the fewest steps.
    """
    found: set[int] = set()
    parents = dict(map(_ids_of, spans))
    if len(parents) < len(spans):  # spans share ids, and may have several parents
        found.update(span[_TRACE_ID].int for span in reporting)
        return found
    above: set[str] = set()
    for span in reporting:
        parent = span[_PARENT]
        while parent is not None and parent not in above:
            above.add(parent)
            parent = parents.get(parent)
    found.update(span[_TRACE_ID].int for span in reporting if span[_SPAN_ID] in above)
    ids = Counter(span[_RESPONSE_ID] for span in reporting)
    del ids[None]
    if len(ids) and ids.most_common(1)[0][1] > 1:
        found.update(
            span[_TRACE_ID].int for span in reporting if ids.get(span[_RESPONSE_ID], 0) > 1
        )
    return found


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
    return tuple(values)


def reported_json(usage: Usage) -> dict[str, Any]:
    """The value of `reported_usage`: what is known by column, costs as text with all digits."""
    known = {column: value for column, value in usage._asdict().items() if value is not None}
    return {
        column: format(value, "f") if column.endswith("_usd") else value
        for column, value in known.items()
    }
