"""Which traces and which spans: frozen dataclasses in which None means any.

Values and keys are literal: there are no wildcards and no paths. Time ranges are half-open,
[start_time, end_time). `conditions()` gives the SQL; everything in it is a bound parameter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, exists, func, or_, tuple_

from observatory_storage import ids
from observatory_storage.models import KINDS, STATUSES, Trace, TraceEvent, TraceSpan
from observatory_storage.repositories import arguments
from observatory_storage.repositories.arguments import AttributeValue, Number
from observatory_storage.repositories.conditions import Conditions, between, equal, put, within

__all__ = ["SpanFilters", "TraceFilters"]

_LLM_TEXTS: Final = ("provider", "model", "user_id", "session_id", "environment")


@dataclass(frozen=True, slots=True)
class _SpanFacts:
    """The conditions that a span can meet, for traces and spans alike."""

    service_name: str | None = None
    operation: str | None = None
    status: str | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    min_duration_us: Number | None = None
    max_duration_us: Number | None = None
    attributes: Mapping[str, AttributeValue] | None = None
    provider: str | None = None
    model: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    environment: str | None = None
    limit: int = 50

    def __post_init__(self) -> None:
        for field in ("service_name", "operation", *_LLM_TEXTS):
            put(self, field, arguments.text(field, getattr(self, field)))
        arguments.choice("status", self.status, STATUSES)
        start, end = arguments.times(self.start_time, self.end_time)
        put(self, "start_time", start)
        put(self, "end_time", end)
        for field in ("min_duration_us", "max_duration_us"):
            put(self, field, arguments.number(field, getattr(self, field)))
        arguments.ordered(
            "min_duration_us", self.min_duration_us, "max_duration_us", self.max_duration_us
        )
        put(self, "attributes", arguments.attributes("attributes", self.attributes))
        arguments.limit(self.limit)

    def conditions(self) -> Conditions:
        """The conditions on `TraceSpan`, all of which one span must meet."""
        found = equal(self, TraceSpan.service_name, TraceSpan.status)
        found += [getattr(TraceSpan, name) == value for name, value in self._llm_texts().items()]
        if self.operation is not None:
            found.append(TraceSpan.name == self.operation)
        found += within(TraceSpan.start_time, self.start_time, self.end_time)
        duration = tuple_(TraceSpan.duration_us, TraceSpan.duration_ns)
        if self.min_duration_us is not None:
            found.append(duration >= divmod(math.ceil(self.min_duration_us * 1000), 1000))
        if self.max_duration_us is not None:
            found.append(duration <= divmod(math.floor(self.max_duration_us * 1000), 1000))
        found += [self._attribute(key, value) for key, value in (self.attributes or {}).items()]
        return found

    def _llm_texts(self) -> dict[str, str]:
        given = {name: getattr(self, name) for name in _LLM_TEXTS}
        return {name: value for name, value in given.items() if value is not None}

    def _attribute(self, key: str, value: AttributeValue) -> ColumnElement[bool]:
        """One pair: in the span's own attributes, its resource's, scope's, links' or events'."""
        pair = {key: value}
        event = exists().where(
            TraceEvent.trace_id == TraceSpan.trace_id,
            TraceEvent.span_id == TraceSpan.span_id,
            TraceEvent.span_start_time == TraceSpan.start_time,
            TraceEvent.span_start_ns == TraceSpan.start_ns,
            TraceEvent.attributes.contains(pair),
            # Implied by the span's own bounds, but the planner does not carry ranges over.
            *within(TraceEvent.span_start_time, self.start_time, self.end_time),
        )
        return or_(
            TraceSpan.attributes.contains(pair),
            TraceSpan.resource_attributes.contains(pair),
            TraceSpan.scope_attributes.contains(pair),
            TraceSpan.links.contains([{"attributes": pair}]),
            event,
        )


@dataclass(frozen=True, slots=True)
class TraceFilters(_SpanFacts):
    """Which traces: those of which one span meets every condition at once.

    A trace that has no spans (yet) is taken for a span of its own: its service, status, time,
    duration, and its own and its resource's attributes are compared. It has no operation and no
    LLM facts.

    Args:
        operation: the span's name.
        status: ``ok``, ``error`` or ``unset``.
        start_time: the matching span starts at this time or later.
        end_time: the matching span starts before this time.
        min_duration_us: in microseconds, inclusive; may be a fraction.
        max_duration_us: in microseconds, inclusive; may be a fraction.
        attributes: keys to text, numbers or bools, each to be met by the span's own attributes,
            its events', its resource's, its scope's or its links'. Numbers compare as numbers
            (1 finds 1.0), never with text or bools.
        limit: the most rows in a page.

    Raises:
        ValidationError: a value is of the wrong type or out of range, or a time has no zone.
    """

    def bare_conditions(self) -> Conditions | None:
        """The conditions on a `Trace` without spans; None where none can meet them."""
        if self.operation is not None or self._llm_texts():
            return None
        found: Conditions = [Trace.last_span_start.is_(None)]
        found += equal(self, Trace.service_name, Trace.status)
        found += within(Trace.start_time, self.start_time, self.end_time)
        if self.min_duration_us is not None:
            found.append(Trace.duration_us >= math.ceil(self.min_duration_us))
        if self.max_duration_us is not None:
            found.append(Trace.duration_us <= math.floor(self.max_duration_us))
        for key, value in (self.attributes or {}).items():
            pair = {key: value}
            found.append(
                or_(Trace.attributes.contains(pair), Trace.resource_attributes.contains(pair))
            )
        return found

    def is_indexed(self) -> bool:
        """Whether an index finds the matching spans by a value that may well be rare."""
        rare = (self.model, self.user_id, self.session_id)
        by_name = self.service_name is not None and self.operation is not None
        return by_name or any(value is not None for value in rare)

    def implied_conditions(self) -> Conditions:
        """What a matching trace's own row must meet: fewer traces whose spans are looked at."""
        found: Conditions = []
        if self.end_time is not None:
            found.append(Trace.start_time < self.end_time)
        if self.start_time is not None:
            last = func.coalesce(Trace.last_span_start, Trace.start_time)
            found.append(last >= self.start_time)
        if self.status == "error":
            found.append(Trace.status == "error")
        if self.min_duration_us is not None:
            # A trace's times have no nanoseconds: its duration may be short by one microsecond.
            least = math.floor(self.min_duration_us) - 1
            found.append(or_(Trace.duration_us >= least, Trace.duration_us.is_(None)))
        return found


@dataclass(frozen=True, slots=True)
class SpanFilters(_SpanFacts):
    """Which spans: those that meet every condition. As `TraceFilters`, with more of them.

    Args:
        trace_id: hex text or UUID.
        kind: ``internal``, ``server``, ``client``, ``producer``, ``consumer``, ``unspecified``.
        name: the same as ``operation``.
        min_tokens: the least of ``total_tokens``, inclusive.
        max_tokens: the most of ``total_tokens``, inclusive.
        min_cost_usd: the least of ``total_cost_usd``, inclusive.
        max_cost_usd: the most of ``total_cost_usd``, inclusive.

    Raises:
        ValidationError: a value is of the wrong type or out of range, or a time has no zone.
    """

    trace_id: str | UUID | None = None
    kind: str | None = None
    name: str | None = None
    min_tokens: int | None = None
    max_tokens: int | None = None
    min_cost_usd: Number | None = None
    max_cost_usd: Number | None = None

    def __post_init__(self) -> None:
        _SpanFacts.__post_init__(self)  # super() does not know a class remade with slots
        if self.trace_id is not None:
            put(self, "trace_id", ids.trace_uuid(self.trace_id))
        arguments.choice("kind", self.kind, KINDS)
        put(self, "name", arguments.text("name", self.name))
        arguments.count("min_tokens", self.min_tokens)
        arguments.count("max_tokens", self.max_tokens)
        arguments.ordered("min_tokens", self.min_tokens, "max_tokens", self.max_tokens)
        for field in ("min_cost_usd", "max_cost_usd"):
            put(self, field, arguments.number(field, getattr(self, field)))
        arguments.ordered("min_cost_usd", self.min_cost_usd, "max_cost_usd", self.max_cost_usd)

    def conditions(self) -> Conditions:
        """The conditions on `TraceSpan`."""
        found = _SpanFacts.conditions(self)
        found += equal(self, TraceSpan.trace_id, TraceSpan.kind, TraceSpan.name)
        found += between(TraceSpan.total_tokens, self.min_tokens, self.max_tokens)
        found += between(TraceSpan.total_cost_usd, self.min_cost_usd, self.max_cost_usd)
        return found
