"""The tables as SQLAlchemy models: the one place where a column, an index or a check is named.

Migrations, COPY column lists, validation and filters derive from the models. The models name no
schema: the engine's ``schema_translate_map`` fills it in. ``docs/your-own-queries.md`` shows how to
query them in your own session.
"""

from observatory_storage.models import related_rows  # noqa: F401 - listens to the models
from observatory_storage.models.base import Base
from observatory_storage.models.logs import LogRecord
from observatory_storage.models.maintenance_runs import MaintenanceRun
from observatory_storage.models.metrics import (
    METRIC_TYPES,
    TEMPORALITIES,
    Metric,
    MetricDataPoint,
    MetricType,
    Temporality,
)
from observatory_storage.models.partition_states import PartitionSplit, PartitionState
from observatory_storage.models.payload_frames import LogFrame, PayloadFrame
from observatory_storage.models.payload_words import (
    PayloadSegment,
    PayloadUnindexed,
    PayloadWords,
)
from observatory_storage.models.pricing import ModelPricing
from observatory_storage.models.retention_tables import EXPIRED_PARTITIONS, PINNED_TRACES
from observatory_storage.models.rollup_tables import (
    ErrorRollupDay,
    ErrorRollupHour,
    LatencyRollupDay,
    LatencyRollupHour,
    RollupState,
    SessionRollupDay,
    SessionRollupHour,
    SpanChange,
    SpanRollupDay,
    SpanRollupHour,
    SpanRollupMinute,
    UserRollupDay,
    UserRollupHour,
)
from observatory_storage.models.trace_spans import (
    COST_SOURCES,
    KINDS,
    Kind,
    TraceEvent,
    TraceSpan,
)
from observatory_storage.models.traces import STATUSES, Status, Trace

__all__ = [
    "COST_SOURCES",
    "EXPIRED_PARTITIONS",
    "KINDS",
    "METRIC_TYPES",
    "PINNED_TRACES",
    "STATUSES",
    "TEMPORALITIES",
    "Base",
    "ErrorRollupDay",
    "ErrorRollupHour",
    "Kind",
    "LatencyRollupDay",
    "LatencyRollupHour",
    "LogFrame",
    "LogRecord",
    "MaintenanceRun",
    "Metric",
    "MetricDataPoint",
    "MetricType",
    "ModelPricing",
    "PartitionSplit",
    "PartitionState",
    "PayloadFrame",
    "PayloadSegment",
    "PayloadUnindexed",
    "PayloadWords",
    "RollupState",
    "SessionRollupDay",
    "SessionRollupHour",
    "SpanChange",
    "SpanRollupDay",
    "SpanRollupHour",
    "SpanRollupMinute",
    "Status",
    "Temporality",
    "Trace",
    "TraceEvent",
    "TraceSpan",
    "UserRollupDay",
    "UserRollupHour",
]
