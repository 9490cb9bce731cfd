"""Frames that have taken over the values of others.

Revision ID: 0013
Revises: 0012
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    column = sa.Column("packed_ids", sa.ARRAY(sa.BigInteger()))
    op.add_column("payload_frames", column, schema=schema)


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    op.drop_column("payload_frames", "packed_ids", schema=schema)
