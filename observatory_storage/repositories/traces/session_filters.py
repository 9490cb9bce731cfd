"""Filters of sessions (conversations)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict

from observatory_storage.errors import ValidationError
from observatory_storage.models import TraceSpan
from observatory_storage.repositories.reading import validation
from observatory_storage.repositories.reading.filter_fields import (
    Filters,
    at_least,
    before,
    equals,
    filter_field,
    limit_field,
    rules_of,
)
from observatory_storage.repositories.reading.operators import Not, TextFilter

__all__ = ["SessionFilters", "SessionKeywords"]


class SessionKeywords(TypedDict, total=False):
    """The fields of `SessionFilters`, for methods that take them as keywords."""

    user_id: TextFilter | None
    service_name: TextFilter | None
    environment: TextFilter | None
    start_time: datetime | None
    end_time: datetime | None
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionFilters(Filters):
    """Selects the sessions that have a span which meets every condition.

    Only spans that have the session's id are compared. If only the root span of a trace has it, the
    service of the root is compared, not the services of the spans below. A field that is None does
    not filter. The other fields take operators as those of `TraceFilters` do, except `Not`.

    Args:
        start_time: the matching span starts at this time or later.
        end_time: the matching span starts before this time.
        limit: the maximum number of rows in a page.

    Raises:
        ValidationError: a value is of the wrong type or out of range, or a time has no zone.
    """

    user_id: TextFilter | None = filter_field(validation.text, equals("user_id"))
    service_name: TextFilter | None = filter_field(validation.text, equals("service_name"))
    environment: TextFilter | None = filter_field(validation.text, equals("environment"))
    start_time: datetime | None = filter_field(validation.moment, at_least("start_time"))
    end_time: datetime | None = filter_field(validation.moment, before("start_time", "end_time"))
    limit: int = limit_field()

    def _check_together(self) -> None:
        validation.in_order(self.start_time, self.end_time)
        for name in rules_of(SessionFilters):
            if isinstance(value := getattr(self, name), Not):
                raise ValidationError(name, value, "must not be negated for sessions")

    def listed(self) -> Any:
        return TraceSpan

    def has_conditions(self) -> bool:
        """Whether there is a condition on the spans other than their time."""
        return not {"start_time", "end_time"}.issuperset(self.parameters())

    def is_indexed(self) -> bool:
        """Whether an index finds the matching spans, or every span matches."""
        return self.user_id is not None or not self.has_conditions()
