"""The indexes that `build_partition_indexes` adds to partitions."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.schema import CreateIndex

from observatory_storage.layout import PARTITIONED
from observatory_storage.llm.content_search import (
    content_of_attributes,
    content_of_event,
    content_of_log,
    content_vector,
)
from observatory_storage.llm.dialects import USAGE_COLUMNS
from observatory_storage.models import Base, LogRecord
from observatory_storage.models.logs import IS_ERROR, IS_STRUCTURED
from observatory_storage.slice_catalog import SLICE

__all__ = ["CLOSED", "OF_OPEN", "OF_SLICES", "OF_TABLES", "IndexKind"]

_MAX_NAME_BYTES: Final = 63


@dataclass(frozen=True, slots=True)
class IndexKind:
    """One index that every partition of a table gets, or every closed one.

    Attributes:
        parent: the index of the table to which this index is attached.
    """

    table: str
    purpose: str
    expressions: Callable[[Any], list[Any]]
    operators: str | None = None
    using: str = "gin"
    where: Callable[[Any], sa.ColumnElement[bool] | sa.TextClause] | None = None
    include: tuple[str, ...] = ()
    parent: str | None = None

    def statement(self, schema: str, partition: str, name: str) -> CreateIndex:
        columns = (sa.Column(each.name, each.type) for each in Base.metadata.tables[self.table].c)
        table = sa.Table(partition, sa.MetaData(), *columns, schema=schema)
        operators = dict.fromkeys(table.c.keys(), self.operators) if self.operators else {}
        index = sa.Index(
            name,
            *self.expressions(table.c),
            postgresql_using=self.using,
            postgresql_ops=operators,
            postgresql_where=None if self.where is None else self.where(table.c),
            postgresql_include=self.include or None,
            postgresql_concurrently=True,
        )
        return CreateIndex(index)

    def name(self, dialect: sa.Dialect, schema: str, partition: str) -> str:
        """The name of the index, which ends in a digest of its definition."""
        definition = str(self.statement(schema, partition, "index").compile(dialect=dialect))
        digest = blake2b(definition.encode(), digest_size=4).hexdigest()
        return f"{self._prefix(partition)}{digest}"

    def is_older(self, name: str, partition: str) -> bool:
        """Whether the name belongs to an index of this kind, possibly of an older definition."""
        return re.fullmatch(re.escape(self._prefix(partition)) + "[0-9a-f]{8}", name) is not None

    def of_slice(self, lower: datetime, upper: datetime) -> IndexKind:
        """The same index of the rows in [lower, upper) alone."""

        def is_within(columns: Any) -> sa.TextClause:
            # Constants, as the planner needs them to prove that it may use the index.
            begin, end = (one.astimezone(UTC).isoformat() for one in (lower, upper))
            time = columns[PARTITIONED[self.table]].name
            return sa.text(f"{time} >= '{begin}' AND {time} < '{end}'".replace(":", r"\:"))

        return replace(self, purpose=f"{self.purpose}_{SLICE}", where=is_within)

    def is_of_slice(self, name: str, partition: str) -> bool:
        """Whether the name belongs to an index of a slice, of this kind, of any definition."""
        return replace(self, purpose=f"{self.purpose}_{SLICE}").is_older(name, partition)

    def _prefix(self, partition: str) -> str:
        max_bytes = _MAX_NAME_BYTES - len(f"ix__{self.purpose}_12345678")
        return f"ix_{partition.encode()[:max_bytes].decode(errors='ignore')}_{self.purpose}_"


CLOSED: Final = (
    IndexKind(
        "trace_spans",
        "attributes",
        lambda c: [c.attributes, c.resource_attributes, c.scope_attributes, c.links],
        "jsonb_path_ops",
    ),
    IndexKind(
        "trace_spans", "content", lambda c: [content_vector(content_of_attributes(c.attributes))]
    ),
    # An index-only scan sums up tokens and costs without reading the prompts in the table.
    IndexKind(
        "trace_spans",
        "usage",
        lambda c: [c.start_time],
        using="btree",
        where=lambda c: sa.or_(c.total_tokens.is_not(None), c.total_cost_usd.is_not(None)),
        include=("service_name", "provider", "model", "environment", *USAGE_COLUMNS),
    ),
    IndexKind("trace_events", "attributes", lambda c: [c.attributes], "jsonb_path_ops"),
    IndexKind(
        "trace_events",
        "content",
        lambda c: [content_vector(content_of_event(c.name, c.attributes))],
    ),
    IndexKind(
        "logs",
        "attributes",
        lambda c: [c.attributes, c.resource_attributes, c.scope_attributes],
        "jsonb_path_ops",
    ),
    # Of all rows, as the index of bodies, so that PostgreSQL keeps statistics of the words.
    IndexKind("logs", "content", lambda c: [content_vector(content_of_log(c))]),
)
"""The indexes of closed partitions."""

OF_SLICES: Final = tuple(kind for kind in CLOSED if kind.using == "gin")
"""The indexes that finished slices of open partitions have: those without which all is read."""

OF_OPEN: Final = (
    # It leads to the newest events, which no slice has yet. Other tables have an index on time.
    IndexKind("trace_events", "time", lambda c: [c.span_start_time], using="brin"),
)
"""The indexes of open partitions that have slices."""

OF_TABLES: Final = (
    IndexKind(
        "logs",
        "body",
        lambda c: [LogRecord.search_vector(c.body)],
        parent="ix_logs_body",
    ),
    IndexKind(
        "logs",
        "errors",
        lambda c: [c.service_name, c.timestamp],
        using="btree",
        where=lambda _: sa.text(IS_ERROR),
        parent="ix_logs_errors",
    ),
    IndexKind(
        "trace_spans",
        "response_id",
        lambda c: [c.response_id, c.start_time],
        using="btree",
        where=lambda c: c.response_id.is_not(None),
        parent="ix_trace_spans_response_id",
    ),
    IndexKind(
        "logs",
        "event_name",
        lambda c: [c.event_name, c.timestamp],
        using="btree",
        where=lambda _: sa.text(IS_STRUCTURED),
        parent="ix_logs_event_name",
    ),
)
"""The indexes of tables that a migration has changed. Partitions that existed before lack them."""
