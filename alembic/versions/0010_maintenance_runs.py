"""What the runs of maintenance did, and when.

Revision ID: 0010
Revises: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0010"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    time = sa.DateTime(timezone=True)
    op.create_table(
        "maintenance_runs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("started_at", time, server_default=sa.text("now()"), nullable=False),
        sa.Column("finished_at", time),
        sa.Column("as_of", time, nullable=False),
        sa.Column("host", sa.Text(collation="C"), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("steps", JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_maintenance_runs"),
        schema=schema,
    )
    op.create_index(
        "ix_maintenance_runs_started_at", "maintenance_runs", ["started_at"], schema=schema
    )


def downgrade() -> None:
    op.drop_table("maintenance_runs", schema=op.get_context().version_table_schema)
