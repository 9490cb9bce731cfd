"""The six tables as SQLAlchemy models: the one place where a column, an index or a check is named.

Everything else (migrations, COPY column lists, validation, filters) derives from here. The schema
is left open: the engine's ``schema_translate_map`` fills it in.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    DateTime,
    Double,
    Index,
    Integer,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.sql.elements import ColumnElement

__all__ = [
    "KINDS",
    "METRIC_TYPES",
    "STATUSES",
    "TEMPORALITIES",
    "Base",
    "LogRecord",
    "Metric",
    "MetricDataPoint",
    "Trace",
    "TraceEvent",
    "TraceSpan",
]

STATUSES: Final = ("unset", "ok", "error")
KINDS: Final = ("unspecified", "internal", "server", "client", "producer", "consumer")
METRIC_TYPES: Final = (
    "gauge",
    "counter",
    "updowncounter",
    "histogram",
    "exponential_histogram",
    "summary",
)
TEMPORALITIES: Final = ("unspecified", "delta", "cumulative")

# Ids and names compare by their bytes: cheaper to index, and the same on every host.
_Name = Text(collation="C")
_Time = DateTime(timezone=True)
_Json = JSONB(none_as_null=True)
# A tsvector holds at most 1 MB; a longer body is stored whole and found by its beginning.
_SEARCHED_CHARACTERS: Final = 100_000
_SHOWN_CHARACTERS: Final = 80
_ERROR_SEVERITY: Final = 17  # OpenTelemetry's SeverityNumber: ERROR begins at 17


def _one_of(column: str, values: tuple[str, ...]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


class Base(DeclarativeBase):
    """The base of the models, with their metadata."""

    _shown: ClassVar[str] = ""  # the columns that tell a row from others

    def __repr__(self) -> str:
        # Only of what is loaded: to show a row must not ask the database for the rest of it.
        values = ((name, self.__dict__.get(name)) for name in self._shown.split())
        facts = (f" {name}={_brief(value)}" for name, value in values if value is not None)
        return f"<{type(self).__name__}{''.join(facts)}>"

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "ix": "ix_%(column_0_label)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - the name and form are SQLAlchemy's
        str: Text(),
        datetime: _Time,
        int: BigInteger(),
        float: Double(),
        Decimal: Numeric(),
        uuid.UUID: Uuid(),
        dict[str, Any]: _Json,
        list[Any]: _Json,
    }


def _brief(value: object) -> str:
    if isinstance(value, str):
        return repr(value if len(value) <= _SHOWN_CHARACTERS else f"{value[:_SHOWN_CHARACTERS]}…")
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _object() -> Mapped[dict[str, Any]]:
    return mapped_column(_Json, server_default=text("'{}'"))


def _now() -> Mapped[datetime]:
    return mapped_column(server_default=func.now())


def _fraction() -> Mapped[int]:
    """The nanoseconds (0-999) that a time has beyond its microseconds."""
    return mapped_column(SmallInteger, server_default=text("0"))


class Trace(Base):
    """A trace, as its spans say it is: see `TraceSpan`. Times are microseconds."""

    __tablename__ = "traces"
    _shown = "trace_id root_span_name service_name start_time duration_us status span_count"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    trace_id: Mapped[str] = mapped_column(_Name)
    service_name: Mapped[str] = mapped_column(_Name)
    start_time: Mapped[datetime]
    end_time: Mapped[datetime | None]
    duration_us: Mapped[int | None]
    status: Mapped[str] = mapped_column(_Name, server_default="unset")
    status_message: Mapped[str | None]
    root_span_name: Mapped[str | None] = mapped_column(_Name)
    attributes: Mapped[dict[str, Any]] = _object()
    resource_attributes: Mapped[dict[str, Any]] = _object()
    span_count: Mapped[int] = mapped_column(server_default=text("0"))
    error_count: Mapped[int] = mapped_column(server_default=text("0"))
    total_tokens: Mapped[int | None]
    total_cost_usd: Mapped[Decimal | None]
    last_span_start: Mapped[datetime | None]
    # The order of the lead span, which gives the trace its name and service: the least by
    # (has a parent, start, span id). Kept so that the choice does not depend on arrival.
    lead_has_parent: Mapped[bool | None] = mapped_column(Boolean)
    lead_start_time: Mapped[datetime | None]
    lead_start_ns: Mapped[int | None] = mapped_column(SmallInteger)
    lead_span_id: Mapped[str | None] = mapped_column(_Name)
    created_at: Mapped[datetime] = _now()
    updated_at: Mapped[datetime] = _now()

    __table_args__ = (
        _one_of("status", STATUSES),
        Index("ix_traces_trace_id", "trace_id"),
        # No index on what a merge changes except the start: the others stay HOT updates, for which
        # the migration leaves room (fillfactor 70; SQLAlchemy 2.0 cannot say so here).
        Index("ix_traces_start_time", "start_time", "id"),
        # The few that no span has spoken for yet, which are looked for by their own columns.
        Index(
            "ix_traces_without_spans",
            "start_time",
            "id",
            postgresql_where=text("lead_span_id IS NULL"),
        ),
    )


class TraceSpan(Base):
    """A span. ``start_ns``, ``end_ns``, ``duration_ns`` are the nanoseconds beyond microseconds."""

    __tablename__ = "trace_spans"
    _shown = "trace_id span_id name kind service_name start_time duration_us status model"

    trace_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    span_id: Mapped[str] = mapped_column(_Name, primary_key=True)
    parent_span_id: Mapped[str | None] = mapped_column(_Name)
    name: Mapped[str] = mapped_column(_Name)
    kind: Mapped[str] = mapped_column(_Name, server_default="internal")
    service_name: Mapped[str] = mapped_column(_Name)
    start_time: Mapped[datetime] = mapped_column(primary_key=True)
    start_ns: Mapped[int] = mapped_column(SmallInteger, primary_key=True, server_default=text("0"))
    end_time: Mapped[datetime | None]
    end_ns: Mapped[int] = _fraction()
    duration_us: Mapped[int | None]
    duration_ns: Mapped[int] = _fraction()
    status: Mapped[str] = mapped_column(_Name, server_default="unset")
    status_message: Mapped[str | None]
    attributes: Mapped[dict[str, Any]] = _object()
    links: Mapped[list[Any]] = mapped_column(_Json, server_default=text("'[]'"))
    resource_attributes: Mapped[dict[str, Any]] = _object()
    scope_name: Mapped[str | None] = mapped_column(_Name)
    scope_version: Mapped[str | None] = mapped_column(_Name)
    scope_attributes: Mapped[dict[str, Any]] = _object()
    otlp: Mapped[dict[str, Any] | None] = mapped_column(_Json)
    provider: Mapped[str | None] = mapped_column(_Name)
    model: Mapped[str | None] = mapped_column(_Name)
    prompt_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]
    total_tokens: Mapped[int | None]
    prompt_cost_usd: Mapped[Decimal | None]
    completion_cost_usd: Mapped[Decimal | None]
    total_cost_usd: Mapped[Decimal | None]
    ttft_ms: Mapped[float | None]
    user_id: Mapped[str | None] = mapped_column(_Name)
    session_id: Mapped[str | None] = mapped_column(_Name)
    environment: Mapped[str | None] = mapped_column(_Name)
    created_at: Mapped[datetime] = _now()

    # What the writers take along with a span. Reading goes by `get_events`: nothing loads lazily.
    events: Mapped[list[TraceEvent]] = relationship(
        viewonly=True,
        lazy="raise",
        order_by="TraceEvent.position",
        primaryjoin="and_(TraceSpan.trace_id == foreign(TraceEvent.trace_id),"
        " TraceSpan.span_id == foreign(TraceEvent.span_id),"
        " TraceSpan.start_time == foreign(TraceEvent.span_start_time),"
        " TraceSpan.start_ns == foreign(TraceEvent.span_start_ns))",
    )

    __table_args__ = (
        _one_of("status", STATUSES),
        _one_of("kind", KINDS),
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
            for column in ("model", "user_id", "session_id")
        ),
        {"postgresql_partition_by": "RANGE (start_time)"},
    )


class TraceEvent(Base):
    """An event of a span, kept beside it: its partition is that of its span's start."""

    __tablename__ = "trace_events"
    _shown = "trace_id span_id position name timestamp"

    trace_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    span_id: Mapped[str] = mapped_column(_Name, primary_key=True)
    span_start_time: Mapped[datetime] = mapped_column(primary_key=True)
    span_start_ns: Mapped[int] = mapped_column(
        SmallInteger, primary_key=True, server_default=text("0")
    )
    position: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(_Name)
    timestamp: Mapped[datetime]
    timestamp_ns: Mapped[int] = _fraction()
    attributes: Mapped[dict[str, Any]] = _object()
    otlp: Mapped[dict[str, Any] | None] = mapped_column(_Json)
    created_at: Mapped[datetime] = _now()

    __table_args__ = ({"postgresql_partition_by": "RANGE (span_start_time)"},)


class Metric(Base):
    """The definition of a metric as one resource and scope reports it."""

    __tablename__ = "metrics"
    _shown = "id name metric_type unit temporality service_name"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(_Name)
    description: Mapped[str | None]
    unit: Mapped[str | None] = mapped_column(_Name)
    metric_type: Mapped[str] = mapped_column(_Name)
    temporality: Mapped[str | None] = mapped_column(_Name)
    service_name: Mapped[str] = mapped_column(_Name)
    attributes: Mapped[dict[str, Any]] = _object()
    resource_attributes: Mapped[dict[str, Any]] = _object()
    scope_name: Mapped[str | None] = mapped_column(_Name)
    scope_version: Mapped[str | None] = mapped_column(_Name)
    scope_attributes: Mapped[dict[str, Any]] = _object()
    otlp: Mapped[dict[str, Any] | None] = mapped_column(_Json)
    created_at: Mapped[datetime] = _now()
    updated_at: Mapped[datetime] = _now()

    __table_args__ = (
        _one_of("metric_type", METRIC_TYPES),
        _one_of("temporality", TEMPORALITIES),
        Index("ix_metrics_name", "name", "id"),
        Index("ix_metrics_service_name", "service_name", "name", "id"),
    )


class MetricDataPoint(Base):
    """One measurement of a metric; beside ``value``, what histograms and summaries have."""

    __tablename__ = "metric_data_points"
    _shown = "metric_id timestamp value count sum"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    metric_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    start_timestamp: Mapped[datetime | None]
    timestamp: Mapped[datetime] = mapped_column(primary_key=True)
    value: Mapped[float | None]
    count: Mapped[int | None]
    sum: Mapped[float | None]
    min: Mapped[float | None]
    max: Mapped[float | None]
    buckets: Mapped[dict[str, Any] | None] = mapped_column(_Json)
    quantiles: Mapped[list[Any] | None] = mapped_column(_Json)
    exemplars: Mapped[list[Any] | None] = mapped_column(_Json)
    attributes: Mapped[dict[str, Any]] = _object()
    otlp: Mapped[dict[str, Any] | None] = mapped_column(_Json)
    created_at: Mapped[datetime] = _now()

    __table_args__ = (
        PrimaryKeyConstraint("metric_id", "timestamp", "id"),
        {"postgresql_partition_by": "RANGE (timestamp)"},
    )


class LogRecord(Base):
    """A log record; a body that is not text stands in ``body_json``."""

    __tablename__ = "logs"
    _shown = "timestamp severity_text service_name body trace_id"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    timestamp: Mapped[datetime] = mapped_column(primary_key=True)
    timestamp_ns: Mapped[int] = _fraction()
    observed_timestamp: Mapped[datetime | None]
    severity_number: Mapped[int | None] = mapped_column(SmallInteger)
    severity_text: Mapped[str | None] = mapped_column(_Name)
    body: Mapped[str | None]
    body_json: Mapped[Any | None] = mapped_column(_Json)
    event_name: Mapped[str | None] = mapped_column(_Name)
    service_name: Mapped[str] = mapped_column(_Name)
    trace_id: Mapped[uuid.UUID | None]
    span_id: Mapped[str | None] = mapped_column(_Name)
    trace_flags: Mapped[int | None]
    attributes: Mapped[dict[str, Any]] = _object()
    resource_attributes: Mapped[dict[str, Any]] = _object()
    scope_name: Mapped[str | None] = mapped_column(_Name)
    scope_version: Mapped[str | None] = mapped_column(_Name)
    scope_attributes: Mapped[dict[str, Any]] = _object()
    otlp: Mapped[dict[str, Any] | None] = mapped_column(_Json)
    created_at: Mapped[datetime] = _now()

    @staticmethod
    def search_vector(body: ColumnElement[str | None]) -> ColumnElement[Any]:
        """The expression that the full-text index is built on, and that a search must repeat."""
        return func.to_tsvector(
            text("'simple'::regconfig"), func.left(body, text(str(_SEARCHED_CHARACTERS)))
        )

    __table_args__ = (
        PrimaryKeyConstraint("timestamp", "id"),
        Index("ix_logs_service_name", "service_name", "timestamp"),
        Index("ix_logs_created_at", "created_at"),
        Index(
            "ix_logs_errors",
            "service_name",
            "timestamp",
            postgresql_where=text(f"severity_number >= {_ERROR_SEVERITY}"),
        ),
        Index(
            "ix_logs_trace_id",
            "trace_id",
            "timestamp",
            postgresql_where=text("trace_id IS NOT NULL"),
        ),
        {"postgresql_partition_by": "RANGE (timestamp)"},
    )


# Of all rows, not only those with a body: PostgreSQL keeps no statistics of the expression of a
# partial index, and would take every word for one of 0.5 % of the records.
Index(
    "ix_logs_body",
    LogRecord.search_vector(LogRecord.__table__.c.body),
    postgresql_using="gin",
)
