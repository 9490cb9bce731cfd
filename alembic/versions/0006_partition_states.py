"""The states of partitions: which are closed, and which are being split.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects.postgresql import JSONB

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
    op.create_table(
        "partition_splits",
        sa.Column("partition_name", sa.Text(collation="C"), nullable=False),
        sa.Column("table_name", sa.Text(collation="C"), nullable=False),
        sa.Column("relation_oid", sa.BigInteger(), nullable=False),
        sa.Column("file_node", sa.BigInteger(), nullable=False),
        sa.Column("definition", sa.Text(collation="C"), nullable=False),
        sa.Column("new_tables", JSONB(), nullable=False),
        sa.Column("block_count", sa.BigInteger(), nullable=False),
        sa.Column("next_block", sa.BigInteger(), nullable=False),
        sa.Column("changed_since", sa.Text(collation="C"), nullable=False),
        sa.Column("is_replaced", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.PrimaryKeyConstraint("partition_name", name=op.f("pk_partition_splits")),
        schema=schema,
    )
    if not context.is_offline_mode() and _server_has_lz4():
        table = '"' + (schema or "public").replace('"', '""').replace(":", "\\:")
        table += '".partition_splits'
        op.execute(sa.text(f"ALTER TABLE {table} ALTER COLUMN new_tables SET COMPRESSION lz4"))


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    op.drop_table("partition_splits", schema=schema)
    op.drop_table("partition_states", schema=schema)


def _server_has_lz4() -> bool:
    return bool(
        op.get_bind().scalar(
            sa.text(
                "SELECT 'lz4' = ANY (enumvals) FROM pg_catalog.pg_settings"
                " WHERE name = 'default_toast_compression'"
            )
        )
    )
