"""Which traces and which spans: frozen dataclasses in which None means any.

Values and keys are literal: there are no wildcards and no paths. Time ranges are half-open,
[start_time, end_time). `conditions()` gives the SQL; everything in it is a bound parameter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from observatory_storage import ids
from observatory_storage.models import KINDS, STATUSES
from observatory_storage.repositories.reading import validation
from observatory_storage.repositories.reading.conditions import Conditions, given, put
from observatory_storage.repositories.reading.validation import AttributeValue, Number
from observatory_storage.repositories.traces.span_conditions import SpanConditions

__all__ = ["SpanFilters", "TraceFilters"]

# As they are: the size of the page is no condition, the others go by other names.
_NOT_COMPARED: Final = {"limit", "attributes", "min_duration_us", "max_duration_us"}
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
    min_tokens: int | None = None
    max_tokens: int | None = None
    min_cost_usd: Number | None = None
    max_cost_usd: Number | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        for field in ("service_name", "operation", *_LLM_TEXTS):
            put(self, field, validation.text(field, getattr(self, field)))
        validation.choice("status", self.status, STATUSES)
        start, end = validation.times(self.start_time, self.end_time)
        put(self, "start_time", start)
        put(self, "end_time", end)
        for field in ("min_duration_us", "max_duration_us"):
            put(self, field, validation.number(field, getattr(self, field)))
        validation.ordered(
            "min_duration_us", self.min_duration_us, "max_duration_us", self.max_duration_us
        )
        put(self, "attributes", validation.attributes("attributes", self.attributes))
        validation.limit(self.limit)
        validation.count("min_tokens", self.min_tokens)
        validation.count("max_tokens", self.max_tokens)
        validation.ordered("min_tokens", self.min_tokens, "max_tokens", self.max_tokens)
        for field in ("min_cost_usd", "max_cost_usd"):
            put(self, field, validation.number(field, getattr(self, field)))
        validation.ordered("min_cost_usd", self.min_cost_usd, "max_cost_usd", self.max_cost_usd)
        put(self, "text", validation.search("text", self.text))

    def conditions(self) -> Conditions:
        """The conditions on `TraceSpan`, all of which one span must meet."""
        return self.in_sql().all()

    def in_sql(self) -> SpanConditions:
        """What is asked of a span and of its trace, with the values."""
        return SpanConditions(self.parameters())

    def sought(self) -> bool:
        """Whether anything is looked for in JSON."""
        return bool(self.attributes) or self.text is not None

    def parameters(self) -> dict[str, Any]:
        """The values of the conditions, by the names that these know; without what is not given."""
        found = {name: value for name, value in given(self) if name not in _NOT_COMPARED}
        if self.status == "error":
            found["trace_status"] = self.status  # any other a trace may have beside its spans'
        if self.min_duration_us is not None:
            exact = divmod(math.ceil(self.min_duration_us * 1000), 1000)
            found["min_duration_us"], found["min_duration_ns"] = exact
            # A trace's times have no nanoseconds: its duration may be short by one microsecond.
            found["min_trace_duration_us"] = math.floor(self.min_duration_us) - 1
            found["min_bare_duration_us"] = math.ceil(self.min_duration_us)
        if self.max_duration_us is not None:
            exact = divmod(math.floor(self.max_duration_us * 1000), 1000)
            found["max_duration_us"], found["max_duration_ns"] = exact
            found["max_bare_duration_us"] = math.floor(self.max_duration_us)
        for number, (key, value) in enumerate((self.attributes or {}).items()):
            found[f"attribute_{number}"] = {key: value}
            found[f"linked_attribute_{number}"] = [{"attributes": {key: value}}]
        return found


@dataclass(frozen=True, slots=True)
class TraceFilters(_SpanFacts):
    """Which traces: those of which one span meets every condition at once.

    A trace that has no spans (yet) is taken for a span of its own: its service, status, time,
    duration, tokens, cost, and its own and its resource's attributes are compared. It has no
    operation, provider, model, user, session or environment.

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
        min_tokens: the least of the span's ``total_tokens``, inclusive.
        max_tokens: the most of it, inclusive.
        min_cost_usd: the least of the span's ``total_cost_usd``, inclusive.
        max_cost_usd: the most of it, inclusive.
        text: words that the prompts and completions must have, as in a web search: see
            `TraceRepository.search_text`.

    Raises:
        ValidationError: a value is of the wrong type or out of range, or a time has no zone.
    """

    def is_indexed(self) -> bool:
        """Whether an index finds the matching spans by a value that may well be rare."""
        rare = (self.model, self.user_id, self.session_id)
        by_name = self.service_name is not None and self.operation is not None
        return by_name or any(value is not None for value in rare)

    def has_newest_spans(self) -> bool:
        """Whether an index has the matching spans in the order of their starts."""
        errors = self.service_name is not None and self.status == "error"
        return (self.is_indexed() or errors) and not self.sought()

    def is_likely_common(self) -> bool:
        """Whether what is indexed is a model alone, which mostly many spans have."""
        rare = (self.user_id, self.session_id, self.operation, self.status)
        return self.model is not None and all(value is None for value in rare)


@dataclass(frozen=True, slots=True)
class SpanFilters(_SpanFacts):
    """Which spans: those that meet every condition. As `TraceFilters`, with more of them.

    Args:
        trace_id: hex text or UUID.
        kind: ``internal``, ``server``, ``client``, ``producer``, ``consumer``, ``unspecified``.
        name: the same as ``operation``.

    Raises:
        ValidationError: a value is of the wrong type or out of range, or a time has no zone.
    """

    trace_id: str | UUID | None = None
    kind: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        _SpanFacts.__post_init__(self)  # super() does not know a class remade with slots
        if self.trace_id is not None:
            put(self, "trace_id", ids.trace_uuid(self.trace_id))
        validation.choice("kind", self.kind, KINDS)
        put(self, "name", validation.text("name", self.name))
