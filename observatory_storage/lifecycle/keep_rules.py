"""The rule by which retention spares traces: groups of conditions, as `TraceFilters` has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from observatory_storage.errors import ConfigError, ValidationError
from observatory_storage.models import Trace, TraceSpan
from observatory_storage.repositories import TraceFilters
from observatory_storage.repositories.traces.framed_content import FramedContent
from observatory_storage.repositories.traces.trace_statements import probed

__all__ = ["keep_filters", "kept_among"]

_IDS: Final = sa.bindparam("ids", type_=sa.ARRAY(Trace.id.type))


def keep_filters(groups: Sequence[Mapping[str, Any]]) -> list[TraceFilters]:
    """The filters of `RetentionConfig.keep`.

    Raises:
        ConfigError: a group has a field that `TraceFilters` does not have, or a value that it
            refuses.
    """
    found = []
    for index, group in enumerate(groups):
        place = f"retention.keep[{index}]"
        if "limit" in group:
            raise ConfigError(f"{place}.limit: is not a condition")
        try:
            found.append(TraceFilters.of(None, group))
        except ValidationError as error:
            raise ConfigError(f"{place}.{error}") from None
        except TypeError as error:
            raise ConfigError(f"{place}: {error}") from None
    return found


def kept_among(
    connection: sa.Connection, filters: Sequence[TraceFilters], ids: Sequence[UUID]
) -> set[UUID]:
    """The traces among these that one of the filters selects."""
    kept: set[UUID] = set()
    for one in filters:
        conditions = one.in_sql(by_trace=True)
        framed = FramedContent(connection, one)
        if framed.is_any:
            of_traces = TraceSpan.trace_id == sa.func.any(sa.literal(list(ids), _IDS.type))
            hours = framed.of_spans(of_traces, *conditions.plain())
            conditions = framed.resolved(conditions, hours)
        walked = sa.select(Trace).where(
            Trace.id == sa.func.any(_IDS), *conditions.implied(), *conditions.of_no_span()
        )
        statement = probed(walked, Trace, conditions).with_only_columns(Trace.id)
        kept.update(connection.scalars(statement, {"ids": list(ids)}))
    return kept
