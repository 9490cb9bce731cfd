"""Bounds on costs and durations, and what passes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from observatory_storage.errors import ValidationError
from observatory_storage.repositories.reading import validation
from observatory_storage.serialization import Result

__all__ = [
    "SpanDuration",
    "Threshold",
    "ThresholdPassed",
    "TraceCost",
    "UserSpend",
    "checked_thresholds",
]

Amount = int | float | Decimal


@dataclass(frozen=True, slots=True)
class TraceCost(Result):
    """The cost of a trace, as it is stored after a commit with spans of it.

    Args:
        max_usd: the bound in US dollars. A trace that costs more has passed it.

    Raises:
        ValidationError: it is not a number, or negative.
    """

    max_usd: Amount

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_usd", _amount("max_usd", self.max_usd))


@dataclass(frozen=True, slots=True)
class SpanDuration(Result):
    """The duration of a span.

    Args:
        maximum: the bound, in seconds or as a timedelta. A span that takes longer has passed it.

    Raises:
        ValidationError: it is not a positive duration.
    """

    maximum: timedelta | float

    def __post_init__(self) -> None:
        object.__setattr__(self, "maximum", _required_width("maximum", self.maximum))


@dataclass(frozen=True, slots=True)
class UserSpend(Result):
    """The cost of the spans of a user that start within a rolling window, which ends now.

    Args:
        max_usd: the bound in US dollars. A user who spends more has passed it.
        window: the length of the window, in seconds or as a timedelta.

    Raises:
        ValidationError: the amount is no number or negative, or the window is not positive.
    """

    max_usd: Amount
    window: timedelta | float

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_usd", _amount("max_usd", self.max_usd))
        object.__setattr__(self, "window", _required_width("window", self.window))


Threshold = TraceCost | SpanDuration | UserSpend


@dataclass(frozen=True, slots=True)
class ThresholdPassed(Result):
    """A bound was passed.

    Attributes:
        threshold: which one.
        subject: the trace's id for `TraceCost`, the span's id for `SpanDuration`, the user's id for
            `UserSpend`.
        value: the cost in US dollars, or the duration.
        trace_id: the `id` of the trace of a span, or of the trace itself; None for a user.
    """

    threshold: Threshold
    subject: str
    value: Decimal | timedelta
    trace_id: UUID | None = None


def checked_thresholds(given: Sequence[Any]) -> Sequence[Threshold]:
    """The thresholds that a watch was given.

    Raises:
        ValidationError: there is none, or one is of another type.
    """
    if not given:
        raise ValidationError("thresholds", given, "must not be empty")
    for threshold in given:
        if not isinstance(threshold, (TraceCost, SpanDuration, UserSpend)):
            rule = "must be TraceCost, SpanDuration or UserSpend"
            raise ValidationError("thresholds", threshold, rule)
    return given


def _amount(field: str, value: Any) -> Decimal:
    amount = validation.number(field, value)
    if amount is None:
        raise ValidationError(field, value, "is required")
    return amount


def _required_width(field: str, value: Any) -> timedelta:
    return validation.bucket(field, value)
