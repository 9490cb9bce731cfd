"""Facts of model calls in columns of their own, and usage that counts once.

New columns are NULL in stored spans until their facts are told anew. Existing partitions get the
index of response ids from `build_partition_indexes`, which builds it CONCURRENTLY.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_NAMES = (
    *("operation", "response_model", "response_id", "agent_name", "tool_name", "finish_reason"),
    *("error_type", "prompt_name"),
)
_OBJECTS = ("token_details", "reported_usage")


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    for name in _NAMES:
        op.add_column("trace_spans", sa.Column(name, sa.Text(collation="C")), schema=schema)
    for name in _OBJECTS:
        op.add_column("trace_spans", sa.Column(name, JSONB()), schema=schema)
    op.add_column(
        "traces",
        sa.Column("usage_span_count", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        schema=schema,
    )
    op.add_column("traces", sa.Column("unsettled_since", sa.DateTime(timezone=True)), schema=schema)
    op.create_index(
        "ix_traces_unsettled",
        "traces",
        ["unsettled_since", "id"],
        postgresql_where=sa.text("unsettled_since IS NOT NULL"),
        schema=schema,
    )
    table = '"' + (schema or "public").replace('"', '""').replace(":", "\\:") + '".trace_spans'
    op.execute(
        sa.text(
            f"CREATE INDEX ix_trace_spans_response_id ON ONLY {table} (response_id, start_time)"
            " WHERE response_id IS NOT NULL"
        )
    )


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    op.drop_index("ix_trace_spans_response_id", "trace_spans", schema=schema)
    op.drop_index("ix_traces_unsettled", "traces", schema=schema)
    op.drop_column("traces", "unsettled_since", schema=schema)
    op.drop_column("traces", "usage_span_count", schema=schema)
    for name in (*_OBJECTS, *_NAMES):
        op.drop_column("trace_spans", name, schema=schema)
