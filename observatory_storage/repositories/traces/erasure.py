"""Erasure of a trace, a user or a session from every table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final, Literal
from typing import cast as cast_type
from uuid import UUID

from sqlalchemy import (
    Column,
    ColumnElement,
    Delete,
    Executable,
    MetaData,
    Select,
    Table,
    Text,
    Update,
    cast,
    delete,
    false,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, Insert, insert
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.schema import CreateTable, DropTable

from observatory_storage import ids
from observatory_storage.errors import NotFound, ValidationError, translated
from observatory_storage.llm.dialects import ALIASES
from observatory_storage.models import LogRecord, MetricDataPoint, Trace, TraceEvent, TraceSpan
from observatory_storage.repositories.metrics.exemplars import without_exemplars
from observatory_storage.repositories.reading import validation
from observatory_storage.repositories.reading.results import DeletedTrace
from observatory_storage.repositories.traces.spans import (
    SpanQueries,
    events_of_trace,
    spans_of_trace,
)

__all__ = ["DeletedRows", "ErasureQueries"]

_TRACES_AT_A_TIME: Final = 500


@dataclass(frozen=True, slots=True)
class DeletedRows:
    """How many rows of each table went with a user or a session.

    Attributes:
        redacted_data_points: how many data points stayed but lost exemplars.
    """

    traces: int
    spans: int
    events: int
    logs: int
    data_points: int
    redacted_data_points: int


# The traces that are being erased, and where their spans lie in time.
_ERASED: Final = Table(
    "erased_traces",
    MetaData(),
    Column("trace_id", Trace.id.type, primary_key=True),
    Column("first_start", Trace.start_time.type),
    Column("last_start", Trace.start_time.type),
    Column("hex", Text(collation="C"), unique=True),
    schema="pg_temp",
    prefixes=["TEMPORARY"],
    postgresql_on_commit="DROP",
)
_Batch = tuple[list[UUID], datetime, datetime]


class ErasureQueries(SpanQueries):
    """The methods of `TraceRepository` that erase.

    Each first locks the rows of the traces, in the order of their ids as writers do. So a writer
    that has spans for them waits until the erasure is committed; these spans then make the trace
    anew.
    """

    def delete(self, trace_id: str | UUID) -> DeletedTrace:
        """Delete a trace with its spans, their events, and the log records that name it.

        Raises:
            NotFound: there is nothing of such a trace.
        """
        key = ids.trace_uuid(trace_id)
        one = select(literal(key, Trace.id.type), literal(key.hex), func.now(), func.now())
        bounds = None if self._changed(_claiming(one)) else self._bounds(key)
        # Of a trace that is not there may be log records, and spans that no writer has written.
        spans = spans_of_trace(key, bounds) if bounds else [TraceSpan.trace_id == key]
        events = events_of_trace(key, bounds) if bounds else [TraceEvent.trace_id == key]
        deleted = DeletedTrace(
            events=self._changed(delete(TraceEvent).where(*events)),
            spans=self._changed(delete(TraceSpan).where(*spans)),
            logs=self._changed(delete(LogRecord).where(LogRecord.trace_id == key)),
        )
        self._changed(delete(Trace).where(Trace.id == key))
        if bounds is None and not (deleted.spans or deleted.events or deleted.logs):
            raise NotFound(f"there is no trace {trace_id}")
        return deleted

    def delete_user(self, user_id: str) -> DeletedRows:
        """Erase a user from every table: whatever was committed before.

        What goes:

        - traces of which a span's ``user_id`` is the user, or whose own attributes name the user:
          the whole traces, with all spans, events and log records, also where a span of such a
          trace is another user's;
        - log records and data points whose attributes name the user;
        - exemplars that name the user or one of these traces, from data points that stay.

        Attributes name a user by any key that ``user_id`` is read from (``user.id``,
        ``enduser.id`` and so on, see `llm.dialects`). Rows written meanwhile or afterwards stay:
        stop the writers first, or erase again. All log records and data points are read for it,
        which in large tables takes its time. Nothing to erase is no error.

        Raises:
            ValidationError: the id is empty or not text.
            Conflict: another transaction had some of the rows; it may be tried again.
        """
        return self._erase("user_id", user_id)

    def delete_session(self, session_id: str) -> DeletedRows:
        """Erase a session from every table, as `delete_user` does a user.

        Raises:
            ValidationError: the id is empty or not text.
            Conflict: another transaction had some of the rows; it may be tried again.
        """
        return self._erase("session_id", session_id)

    def _erase(self, column: Literal["user_id", "session_id"], value: str) -> DeletedRows:
        wanted = validation.required_text(column, value)
        if not wanted:
            raise ValidationError(column, value, "must not be empty")
        pairs = [{key: wanted} for key in ALIASES[column]]
        self._run(CreateTable(_ERASED))
        self._run(_gathering(getattr(TraceSpan, column) == wanted))
        self._run(_gathering_traces(_naming(Trace.attributes, pairs)))
        traces = -self._changed(_CLAIMING)
        self._run(_WIDENING)
        spans = events = logs = 0
        for trace_ids, first, last in self._batches():
            these = literal(trace_ids, ARRAY(Trace.id.type))
            start = TraceEvent.span_start_time.between(first, last)
            events += self._changed(
                delete(TraceEvent).where(TraceEvent.trace_id == func.any(these), start)
            )
            start = TraceSpan.start_time.between(first, last)
            spans += self._changed(
                delete(TraceSpan).where(TraceSpan.trace_id == func.any(these), start)
            )
            # Log records of a trace may be earlier or later than its spans.
            logs += self._changed(delete(LogRecord).where(LogRecord.trace_id == func.any(these)))
            traces += self._changed(delete(Trace).where(Trace.id == func.any(these)))
        logs += self._changed(delete(LogRecord).where(_naming(LogRecord.attributes, pairs)))
        data_points = self._changed(
            delete(MetricDataPoint).where(_naming(MetricDataPoint.attributes, pairs))
        )
        redacted = self._changed(without_exemplars(_ERASED.c.hex, pairs))
        self._run(DropTable(_ERASED))
        return DeletedRows(traces, spans, events, logs, data_points, redacted)

    def _batches(self) -> Iterator[_Batch]:
        """The traces some at a time, with the times between which their spans start."""
        # Those of one time together: they are in few partitions.
        ordered = select(_ERASED.c.trace_id, _ERASED.c.first_start, _ERASED.c.last_start)
        rows = self._stream(ordered.order_by(_ERASED.c.first_start, _ERASED.c.trace_id))
        while batch := list(islice(rows, _TRACES_AT_A_TIME)):
            yield [row[0] for row in batch], batch[0][1], max(row[2] for row in batch)

    def _run(self, statement: Executable) -> None:
        with translated():
            self._session.execute(statement)

    def _changed(self, statement: Delete | Insert | Update) -> int:
        """Run the statement; the number of rows that it changed."""
        changed = statement.returning(literal(1).label("one")).cte("changed")
        return int(self._scalar(select(func.count()).select_from(changed)))


def _gathering(condition: ColumnElement[bool]) -> Any:
    """Take note of the traces of the spans."""
    found = (
        select(
            TraceSpan.trace_id,
            func.min(TraceSpan.start_time),
            func.max(TraceSpan.start_time),
            _hex(TraceSpan.trace_id),
        )
        .where(condition)
        .group_by(TraceSpan.trace_id)
    )
    return insert(_ERASED).from_select(list(_ERASED.c), found)


def _gathering_traces(condition: ColumnElement[bool]) -> Any:
    found = select(Trace.id, Trace.start_time, Trace.start_time, _hex(Trace.id)).where(condition)
    return insert(_ERASED).from_select(list(_ERASED.c), found).on_conflict_do_nothing()


def _claiming(traces: Select[Any, Any, Any, Any]) -> Insert:
    """Lock the rows of traces, in order; it makes those that are not there.

    A trace without a row has nothing to lock, and a writer may be making it this moment. A row
    of our own, which does not outlive the transaction, keeps the writer waiting.
    """
    table = cast_type(Table, Trace.__table__)
    id_, *others = traces.subquery("given").c
    columns = ["id", "trace_id", "start_time", "last_span_start", "service_name"]
    rows = select(id_, *others, literal("")).order_by(id_)
    return (
        insert(table)
        .from_select(columns, rows)
        .on_conflict_do_update(
            index_elements=["id"], set_={"updated_at": table.c.updated_at}, where=false()
        )
    )


_CLAIMING: Final = _claiming(
    select(_ERASED.c.trace_id, _ERASED.c.hex, _ERASED.c.first_start, _ERASED.c.last_start)
)
# Once they are locked, the traces say where their spans lie.
_WIDENING: Final = (
    update(_ERASED)
    .where(_ERASED.c.trace_id == Trace.id)
    .values(
        first_start=func.least(_ERASED.c.first_start, Trace.start_time),
        last_start=func.greatest(_ERASED.c.last_start, Trace.last_span_start),
    )
)


def _hex(trace_id: InstrumentedAttribute[UUID]) -> ColumnElement[str]:
    return func.replace(cast(trace_id, Text), "-", "")


def _naming(
    attributes: InstrumentedAttribute[dict[str, Any]], pairs: Sequence[dict[str, str]]
) -> ColumnElement[bool]:
    return or_(*(attributes.contains(pair) for pair in pairs))
