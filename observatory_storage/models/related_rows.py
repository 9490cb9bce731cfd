"""Inserts and checks rows in relationships, which are view-only.

A session inserts the events of a new span, and refuses other new rows, which it would silently
leave out.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, event, insert, inspect
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Mapper, object_session

from observatory_storage.models.base import Base
from observatory_storage.models.trace_spans import TraceEvent, TraceSpan


@event.listens_for(Base, "before_insert", propagate=True)
def _refuse_related_rows(mapper: Mapper[Any], _: Connection, row: Base) -> None:
    """Raise for rows in a view-only relationship that the session would silently leave out."""
    for key in mapper.relationships.keys() & inspect(row).dict.keys():
        related = inspect(row).dict[key]
        rows = related if isinstance(related, list) else [related]
        stored = key == "events" or all(object_session(each) for each in rows if each)
        if not stored:
            raise InvalidRequestError(
                f"{mapper.class_.__name__}.{key} stores no rows: add them to the session themselves"
            )


@event.listens_for(TraceEvent, "before_insert")
def _complete_key(_: Mapper[TraceEvent], __: Connection, row: TraceEvent) -> None:
    """Give the key to an event that `Session.merge` has added to the session with its new span."""
    if inspect(row).dict.get("span_start_time") is not None:
        return
    spans = [span for span in object_session(row) or () if isinstance(span, TraceSpan)]
    for span in spans:
        for position, each in enumerate(inspect(span).dict.get("events", ())):
            if each is row:
                for name, value in {"position": position, **_event_key(span)}.items():
                    setattr(row, name, value)


def _event_key(span: TraceSpan) -> dict[str, Any]:
    return {
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "span_start_time": span.start_time,
        "span_start_ns": span.start_ns or 0,
    }


@event.listens_for(TraceSpan, "after_insert")
def _insert_events(_: Mapper[TraceSpan], connection: Connection, span: TraceSpan) -> None:
    """Insert the events of a span that a session inserts: the relationship is view-only."""
    key = _event_key(span)
    for position, row in enumerate(inspect(span).dict.get("events", ())):
        if object_session(row) is None:  # else the session inserts it by itself
            given = {"position": position} | dict(row)
            connection.execute(insert(TraceEvent), given | key)
