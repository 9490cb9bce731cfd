"""The words of prompts and completions in payload frames, which maintenance indexes.

Revision ID: 0014
Revises: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    time = sa.DateTime(timezone=True)
    op.create_table(
        "payload_unindexed",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("trace_id", sa.Uuid(), nullable=False),
        sa.Column("start_time", time, nullable=False),
        sa.Column("lost_values", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_payload_unindexed"),
        schema=schema,
    )
    op.create_table(
        "payload_segments",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("first_start", time, nullable=False),
        sa.Column("last_start", time, nullable=False),
        sa.Column("key_count", sa.BigInteger(), nullable=False),
        sa.Column("hours", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", time, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_payload_segments"),
        schema=schema,
    )
    op.create_index(
        "ix_payload_segments_last_start", "payload_segments", ["last_start"], schema=schema
    )
    op.create_table(
        "payload_words",
        sa.Column("segment_id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("first_word", sa.Text(collation="C"), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("segment_id", "first_word", name="pk_payload_words"),
        schema=schema,
    )
    quoted = '"' + (schema or "public").replace('"', '""').replace(":", "\\:") + '"'
    # A part of the hours is read without the rest. The data are compressed already.
    for table, column in (("payload_segments", "hours"), ("payload_words", "data")):
        op.execute(f"ALTER TABLE {quoted}.{table} ALTER COLUMN {column} SET STORAGE EXTERNAL")
    # Searches rely on it that every frame is noted or indexed.
    op.execute(
        f"INSERT INTO {quoted}.payload_unindexed (trace_id, start_time, lost_values)"  # noqa: S608 - quoted
        f" SELECT DISTINCT trace_id, start_time, false FROM {quoted}.payload_frames"
    )


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    for table in ("payload_words", "payload_segments", "payload_unindexed"):
        op.drop_table(table, schema=schema)
