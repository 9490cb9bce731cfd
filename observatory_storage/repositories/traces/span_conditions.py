"""What filters ask of spans and traces, in SQL.

The values are in it, or bind parameters stand for them: of a statement that is made once for all
filters in which the same fields are given.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, bindparam, false, func, or_, tuple_, type_coerce

from observatory_storage.models import Trace, TraceSpan
from observatory_storage.repositories.reading.conditions import Conditions, between, within
from observatory_storage.repositories.traces.json_conditions import (
    Attribute,
    Sought,
    Words,
    anywhere,
)

__all__ = ["SpanConditions", "template"]

_EQUAL: Final = {
    "service_name": TraceSpan.service_name,
    "status": TraceSpan.status,
    "provider": TraceSpan.provider,
    "model": TraceSpan.model,
    "user_id": TraceSpan.user_id,
    "session_id": TraceSpan.session_id,
    "environment": TraceSpan.environment,
    "operation": TraceSpan.name,
    "trace_id": TraceSpan.trace_id,
    "kind": TraceSpan.kind,
    "name": TraceSpan.name,
}
# What a trace without spans cannot have.
_OF_SPANS_ALONE: Final = {
    "operation", "provider", "model", "user_id", "session_id", "environment"
}  # fmt: skip


class SpanConditions:
    """The conditions of filters.

    Args:
        given: what the filters' `parameters` are; see there.
    """

    __slots__ = ("_given",)

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given = given

    def all(self) -> Conditions:
        """The conditions on `TraceSpan`, all of which one span must meet."""
        bounds = self._given.get("start_time"), self._given.get("end_time")
        return [*self.plain(), *(anywhere(sought, *bounds) for sought in self.sought())]

    def plain(self) -> Conditions:
        """Those on its columns that are not JSON."""
        given = self._given
        found = [column == given[name] for name, column in _EQUAL.items() if name in given]
        found += within(TraceSpan.start_time, given.get("start_time"), given.get("end_time"))
        duration = tuple_(TraceSpan.duration_us, TraceSpan.duration_ns)
        if "min_duration_us" in given:
            found.append(duration >= self._duration("min"))
        if "max_duration_us" in given:
            found.append(duration <= self._duration("max"))
        found += between(TraceSpan.total_tokens, given.get("min_tokens"), given.get("max_tokens"))
        least, most = given.get("min_cost_usd"), given.get("max_cost_usd")
        return found + between(TraceSpan.total_cost_usd, least, most)

    def sought(self) -> list[Sought]:
        """What the span or one of its events must have in its JSON."""
        given = self._given
        found: list[Sought] = []
        while (name := f"attribute_{len(found)}") in given:
            found.append(Attribute(given[name], given[f"linked_{name}"]))
        if "text" in given:
            found.append(Words(given["text"]))
        return found

    def need_a_span(self) -> bool:
        """Whether no trace without spans can match."""
        return not _OF_SPANS_ALONE.isdisjoint(self._given)

    def bare(self, trace: type[Trace] = Trace) -> ColumnElement[bool]:
        """That a trace is one without spans, and matches itself."""
        given = self._given
        if self.need_a_span():
            return false()
        found: Conditions = [trace.lead_span_id.is_(None)]
        if "service_name" in given:
            found.append(trace.service_name == given["service_name"])
        if "status" in given:
            found.append(trace.status == given["status"])
        found += within(trace.start_time, given.get("start_time"), given.get("end_time"))
        least, most = given.get("min_bare_duration_us"), given.get("max_bare_duration_us")
        found += between(trace.duration_us, least, most)
        found += between(trace.total_tokens, given.get("min_tokens"), given.get("max_tokens"))
        least, most = given.get("min_cost_usd"), given.get("max_cost_usd")
        found += between(trace.total_cost_usd, least, most)
        return and_(*found, *(sought.in_trace(trace) for sought in self.sought()))

    def implied(self, trace: type[Trace] = Trace) -> Conditions:
        """What a matching trace's own row must meet: fewer traces whose spans are looked at."""
        given = self._given
        found = self.begun(trace)
        if "start_time" in given:
            last = func.coalesce(trace.last_span_start, trace.start_time)
            found.append(last >= given["start_time"])
        if "trace_status" in given:
            found.append(trace.status == given["trace_status"])
        if "min_trace_duration_us" in given:
            long = trace.duration_us >= given["min_trace_duration_us"]
            found.append(or_(long, trace.duration_us.is_(None)))
        # A trace has what its spans have together.
        found += between(trace.total_tokens, given.get("min_tokens"), None)
        return found + between(trace.total_cost_usd, given.get("min_cost_usd"), None)

    def begun(self, trace: type[Trace] = Trace) -> Conditions:
        """That a trace begins before the range of time ends."""
        return within(trace.start_time, None, self._given.get("end_time"))

    def of_service(self) -> Conditions:
        """The conditions on a span's service and time, which an index knows all about."""
        bounds = self._given.get("start_time"), self._given.get("end_time")
        of_service = TraceSpan.service_name == self._given["service_name"]
        return [of_service, *within(TraceSpan.start_time, *bounds)]

    def _duration(self, bound: str) -> ColumnElement[Any]:
        parts = (TraceSpan.duration_us, TraceSpan.duration_ns)
        given = ((self._given[f"{bound}_{part.key}"], part.type) for part in parts)
        return tuple_(*(type_coerce(*one) for one in given))


@lru_cache(maxsize=256)
def template(names: frozenset[str]) -> SpanConditions:
    """The conditions of filters whose parameters have these names, without their values."""
    return SpanConditions({name: bindparam(name) for name in names})
