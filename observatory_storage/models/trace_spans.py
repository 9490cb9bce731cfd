"""The spans of traces, and their events."""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal, get_args

from sqlalchemy import Index, Integer, SmallInteger, event, text
from sqlalchemy.orm import Mapped, mapped_column, relationship
from sqlalchemy.orm.attributes import flag_modified, get_history, set_committed_value

from observatory_storage.models.base import (
    JSON,
    NAME,
    Base,
    fraction,
    json_object,
    now,
    one_of,
)
from observatory_storage.models.traces import STATUSES, Status, Trace

__all__ = ["COST_SOURCES", "KINDS", "CostSource", "Kind", "TraceEvent", "TraceSpan"]

Kind = Literal["unspecified", "internal", "server", "client", "producer", "consumer"]
CostSource = Literal["told", "computed"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
COST_SOURCES: Final[tuple[CostSource, ...]] = get_args(CostSource)


class TraceSpan(Base):
    """A span of a trace. The columns from `provider` on describe a call to a language model.

    Times and ``duration_us`` have microseconds; ``start_ns``, ``end_ns`` and ``duration_ns`` have
    the remaining nanoseconds (0-999). Costs are US dollars.

    To store a span with its events, use a writer, or add or merge the span in a session. The
    session then also inserts the `TraceEvent`s in `events`, with the span's key and their
    positions. To add events to a stored span, add them to the session.
    """

    __tablename__ = "trace_spans"
    _shown = "trace_id span_id name kind service_name start_time duration_us status model"

    trace_id: Mapped[uuid.UUID] = mapped_column(primary_key=True, doc="The `id` of its trace.")
    span_id: Mapped[str] = mapped_column(NAME, primary_key=True, doc="16 hex digits.")
    parent_span_id: Mapped[str | None] = mapped_column(
        NAME, doc="The `span_id` of its parent; None for a root."
    )
    name: Mapped[str] = mapped_column(NAME, doc="The operation, such as `chat gpt-4o`.")
    kind: Mapped[Kind] = mapped_column(
        NAME, server_default="internal", doc="OpenTelemetry's SpanKind, in lower case."
    )
    service_name: Mapped[str] = mapped_column(NAME, doc="The resource's `service.name`.")
    start_time: Mapped[datetime] = mapped_column(primary_key=True, doc="The start of the span.")
    start_ns: Mapped[int] = mapped_column(
        SmallInteger,
        primary_key=True,
        server_default=text("0"),
        doc="The nanoseconds beyond `start_time`.",
    )
    end_time: Mapped[datetime | None] = mapped_column(doc="The end of the span; None if unknown.")
    end_ns: Mapped[int] = fraction("The nanoseconds beyond `end_time`.")
    duration_us: Mapped[int | None] = mapped_column(doc="The duration in whole microseconds.")
    duration_ns: Mapped[int] = fraction("The nanoseconds beyond `duration_us`.")
    status: Mapped[Status] = mapped_column(
        NAME, server_default="unset", doc="OpenTelemetry's status code, in lower case."
    )
    status_message: Mapped[str | None] = mapped_column(doc="The error message of a failed span.")
    attributes: Mapped[dict[str, Any]] = json_object(
        "Its attributes, the LLM ones included: prompts, completions, request settings."
    )
    links: Mapped[list[Any]] = mapped_column(
        JSON, server_default=text("'[]'"), doc="Links to other spans, as OTLP/JSON has them."
    )
    resource_attributes: Mapped[dict[str, Any]] = json_object(
        "Attributes of the resource (process, host, service) that reported it."
    )
    scope_name: Mapped[str | None] = mapped_column(
        NAME, doc="The instrumentation scope, such as `opentelemetry.instrumentation.openai`."
    )
    scope_version: Mapped[str | None] = mapped_column(NAME, doc="The scope's version.")
    scope_attributes: Mapped[dict[str, Any]] = json_object("The scope's attributes.")
    otlp: Mapped[dict[str, Any] | None] = mapped_column(
        JSON, doc="OTLP fields without a column: trace state, flags, dropped counts and types."
    )
    provider: Mapped[str | None] = mapped_column(
        NAME, doc="The provider of the model, such as `openai`."
    )
    model: Mapped[str | None] = mapped_column(
        NAME, doc="The requested model, or the responding one if no requested one is known."
    )
    prompt_tokens: Mapped[int | None] = mapped_column(doc="Input tokens, including cached ones.")
    completion_tokens: Mapped[int | None] = mapped_column(
        doc="Output tokens, including reasoning tokens."
    )
    total_tokens: Mapped[int | None] = mapped_column(
        doc="All tokens: as reported, or the sum of prompt and completion."
    )
    prompt_cost_usd: Mapped[Decimal | None] = mapped_column(doc="The input's cost in US dollars.")
    completion_cost_usd: Mapped[Decimal | None] = mapped_column(
        doc="The output's cost in US dollars."
    )
    total_cost_usd: Mapped[Decimal | None] = mapped_column(
        doc="In US dollars: as reported, or the sum of prompt and completion."
    )
    ttft_ms: Mapped[float | None] = mapped_column(
        doc="The time to the first token, in milliseconds."
    )
    user_id: Mapped[str | None] = mapped_column(NAME, doc="The id of the application's user.")
    session_id: Mapped[str | None] = mapped_column(
        NAME, doc="The id of the session or conversation."
    )
    environment: Mapped[str | None] = mapped_column(
        NAME, doc="The deployment environment, such as `production`."
    )
    operation: Mapped[str | None] = mapped_column(
        NAME, doc="OpenTelemetry's `gen_ai.operation.name`, such as `chat` or `execute_tool`."
    )
    response_model: Mapped[str | None] = mapped_column(NAME, doc="The model that responded.")
    response_id: Mapped[str | None] = mapped_column(
        NAME, doc="The provider's id of the response. Spans with one id report one call."
    )
    agent_name: Mapped[str | None] = mapped_column(NAME, doc="The name of the agent.")
    tool_name: Mapped[str | None] = mapped_column(NAME, doc="The name of the tool that was run.")
    finish_reason: Mapped[str | None] = mapped_column(
        NAME, doc="Why the model stopped, such as `stop`, `length` or `tool_calls`."
    )
    error_type: Mapped[str | None] = mapped_column(
        NAME, doc="OpenTelemetry's `error.type`: the class of the error."
    )
    prompt_name: Mapped[str | None] = mapped_column(
        NAME, doc="The name of the prompt template, not its text."
    )
    token_details: Mapped[dict[str, Any] | None] = mapped_column(
        JSON, doc="Tokens with prices of their own, which are part of their side's tokens."
    )
    reported_usage: Mapped[dict[str, Any] | None] = mapped_column(
        JSON, doc="The usage that the span reports, where its columns do not count it."
    )
    cost_source: Mapped[CostSource | None] = mapped_column(
        NAME,
        doc='"told" if the cost was reported, "computed" if it was computed from prices; NULL'
        " without a cost, and for costs told before revision 0009 or without a writer.",
    )
    reported_cost_source: Mapped[CostSource | None] = mapped_column(
        NAME, doc="The same for the cost in `reported_usage`."
    )
    payload_frame: Mapped[int | None] = mapped_column(
        doc="The `id` of the payload frame that has its large values; None if it has them itself."
    )
    payload_digests: Mapped[dict[str, Any] | None] = mapped_column(
        JSON, doc="The digests of the values in the payload frame, by the keys of the attributes."
    )
    sample_weight: Mapped[int | None] = mapped_column(
        Integer,
        doc="How many spans of the application it stands for; None for itself alone.",
    )
    created_at: Mapped[datetime] = now("When the row was first written.")

    trace: Mapped[Trace | None] = relationship(
        viewonly=True,
        lazy="raise",
        primaryjoin="foreign(TraceSpan.trace_id) == Trace.id",
        doc="Its trace.",
        info={"call": "uow.traces.get(span.trace_id)"},
    )
    events: Mapped[list[TraceEvent]] = relationship(
        viewonly=True,
        lazy="raise",
        order_by="TraceEvent.position",
        primaryjoin="and_(TraceSpan.trace_id == foreign(TraceEvent.trace_id),"
        " TraceSpan.span_id == foreign(TraceEvent.span_id),"
        " TraceSpan.start_time == foreign(TraceEvent.span_start_time),"
        " TraceSpan.start_ns == foreign(TraceEvent.span_start_ns))",
        doc="Its events, in their order.",
        info={"call": "uow.traces.get_events(span.trace_id)"},
    )

    __table_args__ = (
        one_of("status", STATUSES),
        one_of("kind", KINDS),
        Index("ix_trace_spans_start_time", "start_time"),
        Index("ix_trace_spans_operation", "service_name", "name", "start_time"),
        Index("ix_trace_spans_kind", "service_name", "name", "kind"),
        Index(
            "ix_trace_spans_errors",
            "service_name",
            "start_time",
            postgresql_where=text("status = 'error'"),
        ),
        *(
            Index(
                f"ix_trace_spans_{column}",
                column,
                "start_time",
                postgresql_where=text(f"{column} IS NOT NULL"),
            )
            for column in ("model", "user_id", "session_id", "response_id")
        ),
        # A tail reads the rows of the last minutes. Rows stand in the order of this time.
        Index(
            "ix_trace_spans_created_at",
            "created_at",
            postgresql_using="brin",
            postgresql_with={"autosummarize": "on", "pages_per_range": 32},
        ),
        {"postgresql_partition_by": "RANGE (start_time)"},
    )


class TraceEvent(Base):
    """An event of a span, stored in the partition of the span's start.

    Times have microseconds; ``timestamp_ns`` has the remaining nanoseconds (0-999).
    """

    __tablename__ = "trace_events"
    _shown = "trace_id span_id position name timestamp"

    trace_id: Mapped[uuid.UUID] = mapped_column(primary_key=True, doc="The `id` of its trace.")
    span_id: Mapped[str] = mapped_column(NAME, primary_key=True, doc="The `span_id` of its span.")
    span_start_time: Mapped[datetime] = mapped_column(
        primary_key=True, doc="The `start_time` of its span."
    )
    span_start_ns: Mapped[int] = mapped_column(
        SmallInteger,
        primary_key=True,
        server_default=text("0"),
        doc="The `start_ns` of its span.",
    )
    position: Mapped[int] = mapped_column(
        Integer,
        primary_key=True,
        autoincrement=False,
        doc="Its position among the events of its span, from 0.",
    )
    name: Mapped[str] = mapped_column(NAME, doc="The name of the event, such as `exception`.")
    timestamp: Mapped[datetime] = mapped_column(doc="The time of the event.")
    timestamp_ns: Mapped[int] = fraction("The nanoseconds beyond `timestamp`.")
    attributes: Mapped[dict[str, Any]] = json_object("Its attributes.")
    otlp: Mapped[dict[str, Any] | None] = mapped_column(
        JSON, doc="OTLP fields without a column: dropped counts and types."
    )
    payload_frame: Mapped[int | None] = mapped_column(
        doc="The `id` of the payload frame that has its large values; None if it has them itself."
    )
    payload_digests: Mapped[dict[str, Any] | None] = mapped_column(
        JSON, doc="The digests of the values in the payload frame, by the keys of the attributes."
    )
    created_at: Mapped[datetime] = now("When the row was first written.")

    __table_args__ = ({"postgresql_partition_by": "RANGE (span_start_time)"},)


@event.listens_for(TraceSpan, "before_update")
@event.listens_for(TraceEvent, "before_update")
def _leave_frame(_mapper: object, _connection: object, row: TraceSpan | TraceEvent) -> None:
    """Note in the row that its whole attributes, which a session writes, stand in it from now on.

    `payloads.session_changes` removes the values from the frame. Attributes that were read with
    previews are not whole: previews among them still stand for the values in the frame.
    """
    is_whole = vars(row).get("payload_frame", ...) is None
    if is_whole and get_history(row, "attributes").has_changes():
        for name in ("payload_frame", "payload_digests"):
            set_committed_value(row, name, None)
            flag_modified(row, name)
