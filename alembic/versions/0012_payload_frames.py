"""Large values of spans and events, compressed together, beside their rows.

Revision ID: 0012
Revises: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_OWNERS = ("trace_spans", "trace_events")


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    time = sa.DateTime(timezone=True)
    op.create_table(
        "payload_frames",
        sa.Column("trace_id", sa.Uuid(), nullable=False),
        sa.Column("start_time", time, nullable=False),
        sa.Column("id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("value_bytes", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", time, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("trace_id", "start_time", "id", name="pk_payload_frames"),
        schema=schema,
        postgresql_partition_by="RANGE (start_time)",
    )
    quoted = '"' + (schema or "public").replace('"', '""').replace(":", "\\:") + '"'
    # The data are compressed already.
    op.execute(f"ALTER TABLE {quoted}.payload_frames ALTER COLUMN data SET STORAGE EXTERNAL")
    for table in _OWNERS:
        op.add_column(table, sa.Column("payload_frame", sa.BigInteger()), schema=schema)
        op.add_column(table, sa.Column("payload_digests", JSONB()), schema=schema)


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    _refuse_frames(schema)
    for table in reversed(_OWNERS):
        op.drop_column(table, "payload_digests", schema=schema)
        op.drop_column(table, "payload_frame", schema=schema)
    op.drop_table("payload_frames", schema=schema)


def _refuse_frames(schema: str | None) -> None:
    """Refuse to drop values: rows would be left with previews."""
    if context.is_offline_mode():
        return
    frames = sa.table("payload_frames", schema=schema)
    if op.get_bind().scalar(sa.select(sa.exists(sa.select(sa.literal(1)).select_from(frames)))):
        raise RuntimeError(
            "payload_frames has values of spans, which would be lost: first run"
            " `observatory-storage payloads convert --to inline`"
        )
