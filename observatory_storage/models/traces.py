"""Traces."""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from sqlalchemy import Boolean, Index, Integer, SmallInteger, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from observatory_storage.models.base import NAME, Base, json_object, now, one_of

if TYPE_CHECKING:
    from observatory_storage.models.logs import LogRecord
    from observatory_storage.models.trace_spans import TraceSpan

__all__ = ["STATUSES", "Status", "Trace"]

Status = Literal["unset", "ok", "error"]
STATUSES: Final[tuple[Status, ...]] = get_args(Status)


class Trace(Base):
    """A trace, with totals over its spans. Times have microseconds.

    The writers compute a trace's times, status, counts and totals from its spans. Costs are US
    dollars. The lead span is the earliest span without a parent, or the earliest span if all have
    parents.
    """

    __tablename__ = "traces"
    _shown = "trace_id root_span_name service_name start_time duration_us status span_count"

    id: Mapped[uuid.UUID] = mapped_column(
        primary_key=True, doc="The UUID computed from `trace_id`; spans and logs refer to it."
    )
    trace_id: Mapped[str] = mapped_column(
        NAME, doc="The trace id as it was given; 32 hex digits are in lower case."
    )
    service_name: Mapped[str] = mapped_column(NAME, doc="The service of the lead span.")
    start_time: Mapped[datetime] = mapped_column(doc="The start of its first span.")
    end_time: Mapped[datetime | None] = mapped_column(
        doc="The end of its last span; None while no span has ended."
    )
    duration_us: Mapped[int | None] = mapped_column(
        doc="From `start_time` to `end_time`, in microseconds."
    )
    status: Mapped[Status] = mapped_column(
        NAME, server_default="unset", doc='"error" if a span failed; else "ok" or "unset".'
    )
    status_message: Mapped[str | None] = mapped_column(
        doc="The error message, as given to `write_trace`."
    )
    root_span_name: Mapped[str | None] = mapped_column(NAME, doc="The name of the lead span.")
    attributes: Mapped[dict[str, Any]] = json_object("Attributes given for the trace as a whole.")
    resource_attributes: Mapped[dict[str, Any]] = json_object(
        "Attributes of the resource (process, host, service) that reported the trace."
    )
    span_count: Mapped[int] = mapped_column(
        server_default=text("0"), doc="The number of stored spans."
    )
    error_count: Mapped[int] = mapped_column(
        server_default=text("0"), doc='The number of stored spans with the status "error".'
    )
    total_tokens: Mapped[int | None] = mapped_column(
        doc="The tokens of its spans; None if no span reports any."
    )
    total_cost_usd: Mapped[Decimal | None] = mapped_column(
        doc="The cost of its spans, in US dollars; None if no span reports one."
    )
    last_span_start: Mapped[datetime | None] = mapped_column(
        doc="The start of its last span. With `start_time`, it bounds the starts of the spans."
    )
    # The lead span gives the trace its name and service. It is the first span in the order (has a
    # parent, start, span id). Its sort key is stored, so that the order of arrival does not matter.
    lead_has_parent: Mapped[bool | None] = mapped_column(
        Boolean, doc="Whether the lead span has a parent."
    )
    lead_start_time: Mapped[datetime | None] = mapped_column(doc="The start of the lead span.")
    lead_start_ns: Mapped[int | None] = mapped_column(
        SmallInteger, doc="The nanoseconds beyond `lead_start_time`."
    )
    lead_span_id: Mapped[str | None] = mapped_column(NAME, doc="The id of the lead span.")
    usage_span_count: Mapped[int] = mapped_column(
        server_default=text("0"),
        doc="The number of stored spans that report usage, whether or not it counts on them.",
    )
    unsettled_since: Mapped[datetime | None] = mapped_column(
        doc="Since when it awaits settling; None if each token is known to count once."
    )
    sample_weight: Mapped[int | None] = mapped_column(
        Integer,
        doc="How many traces it stands for: the least weight of its spans; None for itself alone.",
    )
    # A trace that was kept for certain may have spans that stand for others, since each process
    # decides by the spans that it sees.
    weighted_span_count: Mapped[int | None] = mapped_column(
        doc="How many spans its spans stand for; None if each stands for itself alone."
    )
    weighted_error_count: Mapped[int | None] = mapped_column(
        doc="The same of those that have failed."
    )
    weighted_tokens: Mapped[Decimal | None] = mapped_column(
        doc="The tokens of the spans that its spans stand for."
    )
    weighted_cost_usd: Mapped[Decimal | None] = mapped_column(doc="Their cost, in US dollars.")
    created_at: Mapped[datetime] = now("When the row was first written.")
    updated_at: Mapped[datetime] = now("When the row was last written.")

    spans: Mapped[list[TraceSpan]] = relationship(
        viewonly=True,
        lazy="raise",
        primaryjoin="Trace.id == foreign(TraceSpan.trace_id)",
        order_by="(TraceSpan.start_time, TraceSpan.start_ns, TraceSpan.span_id)",
        doc="Its spans, by start.",
        info={"call": "uow.traces.get_spans(trace.id)"},
    )
    logs: Mapped[list[LogRecord]] = relationship(
        viewonly=True,
        lazy="raise",
        primaryjoin="Trace.id == foreign(LogRecord.trace_id)",
        order_by="(LogRecord.timestamp, LogRecord.timestamp_ns, LogRecord.id)",
        doc="Its log records, by time.",
        info={"call": "uow.logs.get_by_trace(trace.id)"},
    )

    __table_args__ = (
        one_of("status", STATUSES),
        Index("ix_traces_trace_id", "trace_id"),
        # Of the columns that a merge changes, only the start is indexed: the other changes stay
        # HOT updates, for which the migration leaves room (fillfactor 70, which SQLAlchemy 2.0
        # cannot say here).
        Index("ix_traces_start_time", "start_time", "id"),
        # Traces of which no span has arrived yet are searched by their own columns.
        Index(
            "ix_traces_without_spans",
            "start_time",
            "id",
            postgresql_where=text("lead_span_id IS NULL"),
        ),
        # It contains only the traces whose usage has not been settled.
        Index(
            "ix_traces_unsettled",
            "unsettled_since",
            "id",
            postgresql_where=text("unsettled_since IS NOT NULL"),
        ),
    )
