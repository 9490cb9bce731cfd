"""Tables of retention: traces that are pinned, and partitions that it works on.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_NAME = sa.Text(collation="C")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    op.create_table(
        "pinned_traces",
        sa.Column("trace_id", sa.Uuid(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("pinned_at", _TIME, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("trace_id", name="pk_pinned_traces"),
        schema=schema,
    )
    op.create_table(
        "expired_partitions",
        sa.Column("partition_oid", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("partition", _NAME, nullable=False),
        sa.Column("table_name", _NAME, nullable=False),
        sa.Column("lower_bound", _TIME, nullable=False),
        sa.Column("upper_bound", _TIME, nullable=False),
        sa.Column("state", _NAME, nullable=False),
        sa.Column("archived_rows", sa.BigInteger()),
        sa.Column("archived_versions", sa.Numeric()),
        sa.CheckConstraint(
            "state IN ('filled', 'leaving', 'kept')",
            name=op.f("ck_expired_partitions_state"),
        ),
        sa.PrimaryKeyConstraint("partition_oid", name="pk_expired_partitions"),
        schema=schema,
    )


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    op.drop_table("expired_partitions", schema=schema)
    op.drop_table("pinned_traces", schema=schema)
