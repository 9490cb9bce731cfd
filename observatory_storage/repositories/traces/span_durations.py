"""The conditions on durations. Those of spans have nanoseconds, those of traces do not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from sqlalchemy import or_, tuple_, type_coerce

from observatory_storage.models import TraceSpan
from observatory_storage.repositories.reading.filter_fields import Conditions, Given

__all__ = [
    "greatest_duration",
    "lasts_at_least",
    "lasts_at_most",
    "least_duration",
    "may_last_so_long",
    "took_at_least",
    "took_at_most",
]


def least_duration(name: str, value: Decimal) -> dict[str, Any]:
    """The parameters of the minimum of a duration, in microseconds."""
    whole, nanoseconds = divmod(math.ceil(value * 1000), 1000)
    return {
        name: whole,
        "min_duration_ns": nanoseconds,
        # A trace's times have no nanoseconds, so its duration may be one microsecond too short.
        "min_trace_duration_us": math.floor(value) - 1,
        "min_spanless_duration_us": math.ceil(value),
    }


def greatest_duration(name: str, value: Decimal) -> dict[str, Any]:
    """The parameters of the maximum of a duration, in microseconds."""
    whole, nanoseconds = divmod(math.floor(value * 1000), 1000)
    floor = {"max_spanless_duration_us": math.floor(value)}
    return {name: whole, "max_duration_ns": nanoseconds, **floor}


def lasts_at_least(span: Any, given: Given) -> Conditions:
    """The condition that a span has the minimum duration."""
    return [_took(span) >= _duration(given, "min")] if "min_duration_us" in given else []


def lasts_at_most(span: Any, given: Given) -> Conditions:
    """The condition that a span has at most the maximum duration."""
    return [_took(span) <= _duration(given, "max")] if "max_duration_us" in given else []


def took_at_least(span: Mapping[str, Any], given: Given) -> bool | None:
    """As `lasts_at_least`, in Python."""
    if "min_duration_us" not in given:
        return None
    least = (given["min_duration_us"], given["min_duration_ns"])
    return span["duration_us"] is not None and (span["duration_us"], span["duration_ns"]) >= least


def took_at_most(span: Mapping[str, Any], given: Given) -> bool | None:
    """As `lasts_at_most`, in Python."""
    if "max_duration_us" not in given:
        return None
    most = (given["max_duration_us"], given["max_duration_ns"])
    return span["duration_us"] is not None and (span["duration_us"], span["duration_ns"]) <= most


def _took(span: Any) -> Any:
    return tuple_(span.duration_us, span.duration_ns)


def _duration(given: Given, bound_name: str) -> Any:
    columns = (TraceSpan.duration_us, TraceSpan.duration_ns)
    return tuple_(*(type_coerce(given[f"{bound_name}_{c.key}"], c.type) for c in columns))


def may_last_so_long(trace: Any, given: Given) -> Conditions:
    """The condition that a span of the trace may have the minimum duration."""
    if "min_trace_duration_us" not in given:
        return []
    return [or_(trace.duration_us >= given["min_trace_duration_us"], trace.duration_us.is_(None))]
