"""Frames that have taken over the values of others.

Revision ID: 0013
Revises: 0012
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

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
    _refuse_packed(schema)
    op.drop_column("payload_frames", "packed_ids", schema=schema)


def _refuse_packed(schema: str | None) -> None:
    """Refuse to forget where the values of rows are that name a packed frame."""
    if context.is_offline_mode():
        return
    frames = sa.table("payload_frames", sa.column("packed_ids"), schema=schema)
    packed = sa.select(sa.exists().where(frames.c.packed_ids.is_not(None)))
    if op.get_bind().scalar(packed):
        raise RuntimeError(
            "payload_frames has packed frames, whose values would be lost: first run"
            " `observatory-storage payloads convert --to inline`"
        )
