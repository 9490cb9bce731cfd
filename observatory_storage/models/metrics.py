"""Metrics and their data points."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any, Final, Literal, get_args

from sqlalchemy import Index, PrimaryKeyConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from observatory_storage.models.base import JSON, NAME, Base, json_object, now, one_of

__all__ = [
    "METRIC_TYPES",
    "TEMPORALITIES",
    "Metric",
    "MetricDataPoint",
    "MetricType",
    "Temporality",
]

MetricType = Literal[
    "gauge", "counter", "updowncounter", "histogram", "exponential_histogram", "summary"
]
Temporality = Literal["unspecified", "delta", "cumulative"]
METRIC_TYPES: Final[tuple[MetricType, ...]] = get_args(MetricType)
TEMPORALITIES: Final[tuple[Temporality, ...]] = get_args(Temporality)


class Metric(Base):
    """The definition of a metric that one resource and scope report.

    If two services report the same name, these are two metrics.
    """

    __tablename__ = "metrics"
    _shown = "id name metric_type unit temporality service_name"

    id: Mapped[uuid.UUID] = mapped_column(
        primary_key=True,
        doc="Computed from name, type, unit, temporality, resource and scope.",
    )
    name: Mapped[str] = mapped_column(NAME, doc="Such as `gen_ai.client.operation.duration`.")
    description: Mapped[str | None] = mapped_column(doc="A description of what is measured.")
    unit: Mapped[str | None] = mapped_column(NAME, doc="The unit of its points, in UCUM: `ms`.")
    metric_type: Mapped[MetricType] = mapped_column(
        NAME, doc="The type of the metric, such as `counter`."
    )
    temporality: Mapped[Temporality | None] = mapped_column(
        NAME, doc="Whether points are `delta` or `cumulative`; None for gauges and summaries."
    )
    service_name: Mapped[str] = mapped_column(NAME, doc="The resource's `service.name`.")
    attributes: Mapped[dict[str, Any]] = json_object("Attributes given for the metric as a whole.")
    resource_attributes: Mapped[dict[str, Any]] = json_object(
        "Attributes of the resource (process, host, service) that reports it."
    )
    scope_name: Mapped[str | None] = mapped_column(NAME, doc="The instrumentation scope.")
    scope_version: Mapped[str | None] = mapped_column(NAME, doc="The scope's version.")
    scope_attributes: Mapped[dict[str, Any]] = json_object("The scope's attributes.")
    otlp: Mapped[dict[str, Any] | None] = mapped_column(
        JSON, doc="OTLP fields without a column: schema URLs and types."
    )
    created_at: Mapped[datetime] = now("When the row was first written.")
    updated_at: Mapped[datetime] = now("When the row was last written.")

    points: Mapped[list[MetricDataPoint]] = relationship(
        viewonly=True,
        lazy="raise",
        primaryjoin="Metric.id == foreign(MetricDataPoint.metric_id)",
        order_by="(MetricDataPoint.timestamp, MetricDataPoint.id)",
        doc="Its data points, by time.",
        info={"call": "uow.metrics.get_data_points(metric.id)"},
    )

    __table_args__ = (
        one_of("metric_type", METRIC_TYPES),
        one_of("temporality", TEMPORALITIES),
        Index("ix_metrics_name", "name", "id"),
        Index("ix_metrics_service_name", "service_name", "name", "id"),
    )


class MetricDataPoint(Base):
    """One measurement of a metric, in the metric's `unit`. Times have microseconds.

    Points of gauges and counters have `value`. Points of histograms and summaries have `count` and
    `sum`; `min`, `max`, `buckets` and `quantiles` depend on the type.
    """

    __tablename__ = "metric_data_points"
    _shown = "metric_id timestamp value count sum"

    id: Mapped[uuid.UUID] = mapped_column(
        primary_key=True,
        doc="Computed from the attributes and the start; it identifies the series.",
    )
    metric_id: Mapped[uuid.UUID] = mapped_column(primary_key=True, doc="The `id` of its metric.")
    start_timestamp: Mapped[datetime | None] = mapped_column(
        doc="The start of the counted interval, for sums and histograms."
    )
    timestamp: Mapped[datetime] = mapped_column(
        primary_key=True, doc="The time of the measurement."
    )
    value: Mapped[float | None] = mapped_column(doc="The value of a gauge or a counter.")
    count: Mapped[int | None] = mapped_column(
        doc="The number of observations of a histogram or summary."
    )
    sum: Mapped[float | None] = mapped_column(doc="The sum of the observations.")
    min: Mapped[float | None] = mapped_column(doc="The least observation.")
    max: Mapped[float | None] = mapped_column(doc="The greatest observation.")
    buckets: Mapped[dict[str, Any] | None] = mapped_column(
        JSON, doc="The bounds and counts of a histogram's buckets."
    )
    quantiles: Mapped[list[Any] | None] = mapped_column(
        JSON, doc="The quantiles of a summary, with their values."
    )
    exemplars: Mapped[list[Any] | None] = mapped_column(
        JSON, doc="Exemplars: single measurements with their spans."
    )
    attributes: Mapped[dict[str, Any]] = json_object("The attributes of its series.")
    otlp: Mapped[dict[str, Any] | None] = mapped_column(
        JSON, doc="OTLP fields without a column: flags, nanoseconds and types."
    )
    created_at: Mapped[datetime] = now("When the row was first written.")

    metric: Mapped[Metric | None] = relationship(
        viewonly=True,
        lazy="raise",
        primaryjoin="foreign(MetricDataPoint.metric_id) == Metric.id",
        doc="Its metric.",
        info={"call": "uow.metrics.get(point.metric_id)"},
    )

    __table_args__ = (
        PrimaryKeyConstraint("metric_id", "timestamp", "id"),
        # A tail reads the rows of the last minutes. Rows stand in the order of this time.
        Index(
            "ix_metric_data_points_created_at",
            "created_at",
            postgresql_using="brin",
            postgresql_with={"autosummarize": "on", "pages_per_range": 32},
        ),
        {"postgresql_partition_by": "RANGE (timestamp)"},
    )
