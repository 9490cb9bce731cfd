"""The states of partitions: which are closed, and since when.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    op.create_table(
        "partition_states",
        sa.Column("partition_name", sa.Text(collation="C"), nullable=False),
        sa.Column("table_name", sa.Text(collation="C"), nullable=False),
        sa.Column("relation_oid", sa.BigInteger(), nullable=False),
        sa.Column("lower_bound", sa.DateTime(timezone=True)),
        sa.Column("upper_bound", sa.DateTime(timezone=True)),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("frozen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("row_count", sa.BigInteger(), nullable=False),
        sa.Column("index_definitions", sa.Text(collation="C"), nullable=False),
        sa.PrimaryKeyConstraint("partition_name", name=op.f("pk_partition_states")),
        schema=schema,
    )


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    op.drop_table("partition_states", schema=schema)
