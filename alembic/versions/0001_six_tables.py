"""The six tables: traces, spans, events, metrics, data points, logs.

Partitioned tables begin without a partition: whoever writes makes those that its rows need.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_NAME = sa.Text(collation="C")
_TIME = sa.DateTime(timezone=True)
_JSON = postgresql.JSONB()

# Beyond 2 kB a value is compressed (TOAST); lz4 costs half of what PostgreSQL's own pglz does.
_LARGE = {
    "traces": ("attributes", "resource_attributes"),
    "trace_spans": ("attributes", "links", "resource_attributes", "scope_attributes", "otlp"),
    "trace_events": ("attributes", "otlp"),
    "metrics": ("attributes", "resource_attributes", "scope_attributes", "otlp"),
    "metric_data_points": ("buckets", "quantiles", "exemplars", "attributes", "otlp"),
    "logs": ("body", "body_json", "attributes", "resource_attributes", "scope_attributes", "otlp"),
}


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    _create_traces(schema)
    _create_trace_spans(schema)
    _create_trace_events(schema)
    _create_metrics(schema)
    _create_metric_data_points(schema)
    _create_logs(schema)
    if not context.is_offline_mode() and _server_has_lz4():
        for table, columns in _LARGE.items():
            _compress_with_lz4(schema, table, columns)


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    for table in reversed(_LARGE):
        op.drop_table(table, schema=schema)


def _text(name: str, *, null: bool = True) -> sa.Column[str]:
    """Prose: compared by the database's collation, never indexed."""
    return sa.Column(name, sa.Text(), nullable=null)


def _name(name: str, *, null: bool = True, default: str | None = None) -> sa.Column[str]:
    """An id or a name: compared by its bytes."""
    return sa.Column(name, _NAME, nullable=null, server_default=default)


def _time(name: str, *, null: bool = True) -> sa.Column[object]:
    return sa.Column(name, _TIME, nullable=null)


def _now(name: str) -> sa.Column[object]:
    return sa.Column(name, _TIME, nullable=False, server_default=sa.func.now())


def _fraction(name: str) -> sa.Column[int]:
    """The nanoseconds (0-999) that a time has beyond its microseconds."""
    return sa.Column(name, sa.SmallInteger(), nullable=False, server_default=sa.text("0"))


def _bigint(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=True)


def _json(name: str, *, default: str | None = None) -> sa.Column[object]:
    value = None if default is None else sa.text(f"'{default}'")
    return sa.Column(name, _JSON, nullable=default is None, server_default=value)


def _one_of(table: str, column: str, *values: str) -> sa.CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return sa.CheckConstraint(f"{column} IN ({listed})", name=op.f(f"ck_{table}_{column}"))


def _create_traces(schema: str | None) -> None:
    op.create_table(
        "traces",
        sa.Column("id", sa.Uuid(), nullable=False),
        _name("trace_id", null=False),
        _name("service_name", null=False),
        _time("start_time", null=False),
        _time("end_time"),
        _bigint("duration_us"),
        _name("status", null=False, default="unset"),
        _text("status_message"),
        _name("root_span_name"),
        _json("attributes", default="{}"),
        _json("resource_attributes", default="{}"),
        sa.Column("span_count", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("error_count", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        _bigint("total_tokens"),
        sa.Column("total_cost_usd", sa.Numeric(), nullable=True),
        _time("last_span_start"),
        sa.Column("lead_has_parent", sa.Boolean(), nullable=True),
        _time("lead_start_time"),
        sa.Column("lead_start_ns", sa.SmallInteger(), nullable=True),
        _name("lead_span_id"),
        _now("created_at"),
        _now("updated_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_traces")),
        _one_of("traces", "status", "unset", "ok", "error"),
        schema=schema,
    )
    # Rows are updated by each batch that has spans of them: room for HOT updates, and a vacuum
    # that comes often.
    op.execute(
        f"ALTER TABLE {_qualified('traces', schema)} SET (fillfactor = 70,"
        " autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.02)"
    )
    op.create_index("ix_traces_trace_id", "traces", ["trace_id"], schema=schema)
    op.create_index("ix_traces_start_time", "traces", ["start_time", "id"], schema=schema)
    op.create_index(
        "ix_traces_without_spans",
        "traces",
        ["start_time", "id"],
        schema=schema,
        postgresql_where=sa.text("lead_span_id IS NULL"),
    )


def _create_trace_spans(schema: str | None) -> None:
    op.create_table(
        "trace_spans",
        sa.Column("trace_id", sa.Uuid(), nullable=False),
        _name("span_id", null=False),
        _name("parent_span_id"),
        _name("name", null=False),
        _name("kind", null=False, default="internal"),
        _name("service_name", null=False),
        _time("start_time", null=False),
        _fraction("start_ns"),
        _time("end_time"),
        _fraction("end_ns"),
        _bigint("duration_us"),
        _fraction("duration_ns"),
        _name("status", null=False, default="unset"),
        _text("status_message"),
        _json("attributes", default="{}"),
        _json("links", default="[]"),
        _json("resource_attributes", default="{}"),
        _name("scope_name"),
        _name("scope_version"),
        _json("scope_attributes", default="{}"),
        _json("otlp"),
        _name("provider"),
        _name("model"),
        _bigint("prompt_tokens"),
        _bigint("completion_tokens"),
        _bigint("total_tokens"),
        sa.Column("prompt_cost_usd", sa.Numeric(), nullable=True),
        sa.Column("completion_cost_usd", sa.Numeric(), nullable=True),
        sa.Column("total_cost_usd", sa.Numeric(), nullable=True),
        sa.Column("ttft_ms", sa.Double(), nullable=True),
        _name("user_id"),
        _name("session_id"),
        _name("environment"),
        _now("created_at"),
        sa.PrimaryKeyConstraint(
            "trace_id", "span_id", "start_time", "start_ns", name=op.f("pk_trace_spans")
        ),
        _one_of("trace_spans", "status", "unset", "ok", "error"),
        _one_of(
            "trace_spans",
            "kind",
            "unspecified",
            "internal",
            "server",
            "client",
            "producer",
            "consumer",
        ),
        schema=schema,
        postgresql_partition_by="RANGE (start_time)",
    )
    op.create_index("ix_trace_spans_start_time", "trace_spans", ["start_time"], schema=schema)
    op.create_index(
        "ix_trace_spans_operation",
        "trace_spans",
        ["service_name", "name", "start_time"],
        schema=schema,
    )
    op.create_index(
        "ix_trace_spans_kind", "trace_spans", ["service_name", "name", "kind"], schema=schema
    )
    op.create_index(
        "ix_trace_spans_errors",
        "trace_spans",
        ["service_name", "start_time"],
        schema=schema,
        postgresql_where=sa.text("status = 'error'"),
    )
    for column in ("model", "user_id", "session_id"):
        op.create_index(
            f"ix_trace_spans_{column}",
            "trace_spans",
            [column, "start_time"],
            schema=schema,
            postgresql_where=sa.text(f"{column} IS NOT NULL"),
        )


def _create_trace_events(schema: str | None) -> None:
    op.create_table(
        "trace_events",
        sa.Column("trace_id", sa.Uuid(), nullable=False),
        _name("span_id", null=False),
        _time("span_start_time", null=False),
        _fraction("span_start_ns"),
        sa.Column("position", sa.Integer(), nullable=False, autoincrement=False),
        _name("name", null=False),
        _time("timestamp", null=False),
        _fraction("timestamp_ns"),
        _json("attributes", default="{}"),
        _json("otlp"),
        _now("created_at"),
        sa.PrimaryKeyConstraint(
            "trace_id",
            "span_id",
            "span_start_time",
            "span_start_ns",
            "position",
            name=op.f("pk_trace_events"),
        ),
        schema=schema,
        postgresql_partition_by="RANGE (span_start_time)",
    )


def _create_metrics(schema: str | None) -> None:
    op.create_table(
        "metrics",
        sa.Column("id", sa.Uuid(), nullable=False),
        _name("name", null=False),
        _text("description"),
        _name("unit"),
        _name("metric_type", null=False),
        _name("temporality"),
        _name("service_name", null=False),
        _json("attributes", default="{}"),
        _json("resource_attributes", default="{}"),
        _name("scope_name"),
        _name("scope_version"),
        _json("scope_attributes", default="{}"),
        _json("otlp"),
        _now("created_at"),
        _now("updated_at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_metrics")),
        _one_of(
            "metrics",
            "metric_type",
            "gauge",
            "counter",
            "updowncounter",
            "histogram",
            "exponential_histogram",
            "summary",
        ),
        _one_of("metrics", "temporality", "unspecified", "delta", "cumulative"),
        schema=schema,
    )
    op.create_index("ix_metrics_name", "metrics", ["name", "id"], schema=schema)
    op.create_index(
        "ix_metrics_service_name", "metrics", ["service_name", "name", "id"], schema=schema
    )


def _create_metric_data_points(schema: str | None) -> None:
    op.create_table(
        "metric_data_points",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("metric_id", sa.Uuid(), nullable=False),
        _time("start_timestamp"),
        _time("timestamp", null=False),
        sa.Column("value", sa.Double(), nullable=True),
        _bigint("count"),
        sa.Column("sum", sa.Double(), nullable=True),
        sa.Column("min", sa.Double(), nullable=True),
        sa.Column("max", sa.Double(), nullable=True),
        _json("buckets"),
        _json("quantiles"),
        _json("exemplars"),
        _json("attributes", default="{}"),
        _json("otlp"),
        _now("created_at"),
        sa.PrimaryKeyConstraint("metric_id", "timestamp", "id", name=op.f("pk_metric_data_points")),
        schema=schema,
        postgresql_partition_by="RANGE (timestamp)",
    )


def _create_logs(schema: str | None) -> None:
    op.create_table(
        "logs",
        sa.Column("id", sa.Uuid(), nullable=False),
        _time("timestamp", null=False),
        _fraction("timestamp_ns"),
        _time("observed_timestamp"),
        sa.Column("severity_number", sa.SmallInteger(), nullable=True),
        _name("severity_text"),
        _text("body"),
        _json("body_json"),
        _name("event_name"),
        _name("service_name", null=False),
        sa.Column("trace_id", sa.Uuid(), nullable=True),
        _name("span_id"),
        _bigint("trace_flags"),
        _json("attributes", default="{}"),
        _json("resource_attributes", default="{}"),
        _name("scope_name"),
        _name("scope_version"),
        _json("scope_attributes", default="{}"),
        _json("otlp"),
        _now("created_at"),
        sa.PrimaryKeyConstraint("timestamp", "id", name=op.f("pk_logs")),
        schema=schema,
        postgresql_partition_by="RANGE (timestamp)",
    )
    op.create_index("ix_logs_service_name", "logs", ["service_name", "timestamp"], schema=schema)
    op.create_index("ix_logs_created_at", "logs", ["created_at"], schema=schema)
    op.create_index(
        "ix_logs_errors",
        "logs",
        ["service_name", "timestamp"],
        schema=schema,
        postgresql_where=sa.text("severity_number >= 17"),
    )
    op.create_index(
        "ix_logs_trace_id",
        "logs",
        ["trace_id", "timestamp"],
        schema=schema,
        postgresql_where=sa.text("trace_id IS NOT NULL"),
    )
    op.create_index(
        "ix_logs_body",
        "logs",
        [sa.text("to_tsvector('simple'::regconfig, left(body, 100000))")],
        schema=schema,
        postgresql_using="gin",
    )


def _qualified(table: str, schema: str | None) -> str:
    quoted = '"' + (schema or "public").replace('"', '""').replace(":", "\\:") + '"'
    return f"{quoted}.{table}"


def _server_has_lz4() -> bool:
    return bool(
        op.get_bind().scalar(
            sa.text(
                "SELECT 'lz4' = ANY (enumvals) FROM pg_catalog.pg_settings"
                " WHERE name = 'default_toast_compression'"
            )
        )
    )


def _compress_with_lz4(schema: str | None, table: str, columns: tuple[str, ...]) -> None:
    # Quoted for `sqlalchemy.text`, where a colon would begin a parameter.
    changes = ", ".join(f"ALTER COLUMN {column} SET COMPRESSION lz4" for column in columns)
    op.execute(f"ALTER TABLE {_qualified(table, schema)} {changes}")
