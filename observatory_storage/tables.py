"""The registry of tables: one definition of each, which everything that writes derives from.

A table that is listed in `TABLES` is prepared, buffered, spooled, copied, inserted and merged; its
partitions are made where its model says that it is partitioned. See CONTRIBUTING.md for a new one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any, Final, Literal

from sqlalchemy import Table
from sqlalchemy.dialects.postgresql import JSONB

from observatory_storage import models
from observatory_storage.errors import ValidationError

__all__ = [
    "DATA_POINTS",
    "DISTRIBUTED",
    "EVENTS",
    "LOGS",
    "LOG_FRAMES",
    "METRICS",
    "OWN_TABLES",
    "PAYLOAD_COLUMNS",
    "PAYLOAD_FRAMES",
    "REFERENCE_TABLES",
    "ROLLUP_TABLES",
    "SPANS",
    "SPAN_KEY_OF_EVENT",
    "TABLES",
    "TRACES",
    "ConflictRule",
    "TableDefinition",
    "Values",
    "table_named",
]

Values = tuple[Any, ...]
"""One value for each of a table's columns, in their order."""

ConflictRule = Literal["keep", "replace", "replace_unless_unended", "fill_unless_spans_tell"]
"""What happens to a row whose key is there already; `storing.conflict_rules` has the statements."""

_RANGE: Final = re.compile(r"RANGE \((\w+)\)")
_TIMES_OF_WRITING: Final = frozenset({"created_at", "updated_at"})
PAYLOAD_COLUMNS: Final = ("payload_frame", "payload_digests")
"""The columns of a row whose large values stand in a payload frame."""


@dataclass(frozen=True, eq=False)
class TableDefinition:
    """What writing needs to know of a table. Columns, types and key come from its model.

    Attributes:
        model: the ORM class.
        on_conflict: what happens to a row whose key is there already.
        computed: required columns that preparing a row fills in where they are not given.
        version_key: columns that all versions of one row have in common, the primary key where
            none are named. Rows that share them are written in the order in which they came.
        filled_by_storage: columns that no writer gives: defaults of the database, or what the
            storage computes.
        filled_later: columns that the storage fills if the writer does not give them. A row that
            replaces a stored one keeps their values where it has none.
        least: columns that keep the lesser value of a stored row and of the one that replaces it.
            NULL is the least.
        distributed_by: the column whose values decide on which shard a row is, in the layout
            "citus". It is in the primary key and is never updated. None: each node has all rows.
        beside: the table whose shards have the rows of the same values.
    """

    model: type[models.Base]
    on_conflict: ConflictRule
    computed: tuple[str, ...] = ("id",)
    version_key: tuple[str, ...] = ()
    filled_by_storage: frozenset[str] = _TIMES_OF_WRITING
    filled_later: frozenset[str] = frozenset()
    least: frozenset[str] = frozenset()
    distributed_by: str | None = None
    beside: str | None = None

    @cached_property
    def table(self) -> Table:
        table = self.model.__table__
        assert isinstance(table, Table)
        return table

    @cached_property
    def name(self) -> str:
        return self.table.name

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The columns that writers give, in the order of `Row.values`."""
        return tuple(name for name in self.table.c.keys() if name not in self.filled_by_storage)  # noqa: SIM118 - iterating gives columns

    @cached_property
    def attributes(self) -> frozenset[str]:
        """What an instance of the model has by the names of columns, and a span its events."""
        return frozenset({*self.table.c.keys(), "events"})

    @cached_property
    def position(self) -> dict[str, int]:
        """Where each of the columns stands in `Row.values`."""
        return {column: position for position, column in enumerate(self.columns)}

    def positions(self, *columns: str) -> tuple[int, ...]:
        """Where these columns stand in `Row.values`."""
        return tuple(self.position[column] for column in columns)

    @cached_property
    def key(self) -> tuple[str, ...]:
        """The columns of the primary key."""
        return tuple(self.table.primary_key.columns.keys())

    @cached_property
    def json_columns(self) -> frozenset[str]:
        """The columns whose values are JSON."""
        return frozenset(c.name for c in self.table.columns if isinstance(c.type, JSONB))

    @cached_property
    def partition_column(self) -> str | None:
        """The column whose ranges the table is partitioned by; None where it is not."""
        partition_by = self.table.dialect_options["postgresql"]["partition_by"]
        match = _RANGE.fullmatch(partition_by or "")
        return match[1] if match else None

    @cached_property
    def partition_position(self) -> int | None:
        """Where the partition column stands in `Row.values`."""
        return None if self.partition_column is None else self.position[self.partition_column]

    @cached_property
    def version_of(self) -> Callable[[Values], Hashable]:
        """What a row has in common with its other versions: see `version_key`."""
        return itemgetter(*self.positions(*(self.version_key or self.key)))


TRACES: Final = TableDefinition(
    models.Trace,
    on_conflict="fill_unless_spans_tell",
    computed=("id", "trace_id"),
    filled_by_storage=_TIMES_OF_WRITING
    | {"last_span_start", "lead_has_parent", "lead_start_time", "lead_start_ns", "lead_span_id"}
    | {"usage_span_count", "unsettled_since", "sample_weight"}
    | {"weighted_span_count", "weighted_error_count", "weighted_tokens", "weighted_cost_usd"},
    distributed_by="id",
)
_OF_TRACE: Final[dict[str, Any]] = {"distributed_by": "trace_id", "beside": TRACES.name}
# An event has the version key of its span: neither is written before what was written earlier.
SPANS: Final = TableDefinition(
    models.TraceSpan,
    on_conflict="replace_unless_unended",
    version_key=("span_id",),
    filled_by_storage=_TIMES_OF_WRITING.union(PAYLOAD_COLUMNS),
    filled_later=frozenset({"user_id", "session_id"}),
    # A span that was kept for certain once, such as one with an error, stands for itself alone.
    least=frozenset({"sample_weight"}),
    **_OF_TRACE,
)
EVENTS: Final = TableDefinition(
    models.TraceEvent,
    on_conflict="replace",
    version_key=("span_id",),
    filled_by_storage=_TIMES_OF_WRITING.union(PAYLOAD_COLUMNS),
    **_OF_TRACE,
)
# The columns of an event that hold its span's key: trace_id, span_id, start_time, start_ns.
SPAN_KEY_OF_EVENT: Final = ("trace_id", "span_id", "span_start_time", "span_start_ns")
METRICS: Final = TableDefinition(models.Metric, on_conflict="replace")
DATA_POINTS: Final = TableDefinition(
    models.MetricDataPoint, on_conflict="keep", distributed_by="metric_id"
)
LOGS: Final = TableDefinition(
    models.LogRecord,
    on_conflict="keep",
    version_key=("id",),
    filled_by_storage=_TIMES_OF_WRITING.union(PAYLOAD_COLUMNS),
    distributed_by="id",
)

PAYLOAD_FRAMES: Final = TableDefinition(
    models.PayloadFrame,
    on_conflict="keep",
    filled_by_storage=_TIMES_OF_WRITING | {"packed_ids"},
    **_OF_TRACE,
)
"""Rows that the storage makes from large values. No writer is given rows of it."""
LOG_FRAMES: Final = TableDefinition(
    models.LogFrame,
    on_conflict="keep",
    filled_by_storage=_TIMES_OF_WRITING | {"packed_ids"},
    **_OF_TRACE,
)
"""The same of log records."""

TABLES: Final = {table.name: table for table in (TRACES, SPANS, EVENTS, METRICS, DATA_POINTS, LOGS)}
"""All tables that rows are written to, by their names."""

DISTRIBUTED: Final = tuple(
    table for table in (*TABLES.values(), PAYLOAD_FRAMES, LOG_FRAMES) if table.distributed_by
)
"""The tables that have shards in the layout "citus", each after the one that it is beside."""

REFERENCE_TABLES: Final = (METRICS.name, models.PINNED_TRACES.name)
"""The names of the tables of which each node has a copy then: what the shards are joined with.

The other tables of the storage stay on the coordinator. Statements read or write them alone, or
with a few rows.
"""

ROLLUP_TABLES: Final = frozenset(
    mapper.class_.__tablename__
    for mapper in models.Base.registry.mappers
    if mapper.class_.__module__ == models.SpanChange.__module__
)
"""The names of the tables of rollups, and of what says which of them are out of date."""

OWN_TABLES: Final = ROLLUP_TABLES.union(
    ("expired_partitions", "log_frames", "maintenance_runs", "model_pricing", "partition_splits"),
    ("partition_states", "payload_frames", "pinned_traces"),
    ("payload_segments", "payload_unindexed", "payload_words"),
)
"""The names of the tables that the storage keeps for itself. No writer is given rows of them."""


def table_named(name: str) -> TableDefinition:
    """The definition of a table.

    Raises:
        ValidationError: no table of this name is in the registry.
    """
    try:
        return TABLES[name]
    except KeyError:
        raise ValidationError("table", name, f"must be one of {', '.join(TABLES)}") from None
