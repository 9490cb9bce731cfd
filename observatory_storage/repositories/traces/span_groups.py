"""What spans can be grouped by, and how their durations are measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Double, Label, cast, literal
from sqlalchemy.orm import InstrumentedAttribute

from observatory_storage.models import TraceSpan
from observatory_storage.repositories.reading import validation

__all__ = ["DURATION_US", "SPAN_GROUPS", "group_columns"]

SPAN_GROUPS: Final[Mapping[str, InstrumentedAttribute[Any]]] = {
    "service_name": TraceSpan.service_name,
    "operation": TraceSpan.name,
    "kind": TraceSpan.kind,
    "status": TraceSpan.status,
    "provider": TraceSpan.provider,
    "model": TraceSpan.model,
    "environment": TraceSpan.environment,
    "user_id": TraceSpan.user_id,
    "session_id": TraceSpan.session_id,
}
# With its nanoseconds; NULL while the span has not ended.
DURATION_US: Final = cast(TraceSpan.duration_us, Double) + cast(
    TraceSpan.duration_ns, Double
) / literal(1000.0, Double)


def group_columns(
    group_by: str | Sequence[str], names: Sequence[str] = tuple(SPAN_GROUPS)
) -> dict[str, Label[Any]]:
    """The columns of a ``group_by``, by their names.

    Args:
        names: those that can be grouped by.

    Raises:
        ValidationError: it is no name or sequence of names, or one is not known.
    """
    given = validation.names("group_by", group_by)
    for name in given:
        validation.choice("group_by", name, names)
    # A label of its own: GROUP BY would take the name of a column for that column.
    return {name: SPAN_GROUPS[name].label(f"group_{name}") for name in given}
