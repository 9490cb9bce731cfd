"""Prices of models, and whether the cost of a span was told or computed from them.

The new columns are NULL in stored spans: their costs were told.

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_RATES = (
    *("input", "output", "cache_read", "cache_write", "cache_write_1h", "reasoning"),
    *("input_audio", "output_audio", "input_image", "output_image", "input_video", "output_video"),
)
_SOURCES = ("cost_source", "reported_cost_source")


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    name = sa.Text(collation="C")
    op.create_table(
        "model_pricing",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("source", name, nullable=False),
        sa.Column("provider", name),
        sa.Column("model", name, nullable=False),
        sa.Column("aliases", JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column("service_tier", name),
        sa.Column("valid_from", sa.DateTime(timezone=True)),
        sa.Column("valid_to", sa.DateTime(timezone=True)),
        *(sa.Column(f"{rate}_usd_per_mtok", sa.Numeric()) for rate in _RATES),
        sa.Column("usd_per_request", sa.Numeric()),
        sa.Column("tiers", JSONB(), server_default=sa.text("'[]'"), nullable=False),
        sa.Column(
            "loaded_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False
        ),
        sa.CheckConstraint("valid_from < valid_to", name="ck_model_pricing_validity"),
        sa.PrimaryKeyConstraint("id", name="pk_model_pricing"),
        schema=schema,
    )
    if not context.is_offline_mode() and _server_has_lz4():
        table = '"' + (schema or "public").replace('"', '""').replace(":", "\\:") + '"'
        op.execute(
            sa.text(
                f"ALTER TABLE {table}.model_pricing ALTER COLUMN aliases SET COMPRESSION lz4,"
                " ALTER COLUMN tiers SET COMPRESSION lz4"
            )
        )
    for column in _SOURCES:
        op.add_column("trace_spans", sa.Column(column, name), schema=schema)


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    for column in reversed(_SOURCES):
        op.drop_column("trace_spans", column, schema=schema)
    op.drop_table("model_pricing", schema=schema)


def _server_has_lz4() -> bool:
    return bool(
        op.get_bind().scalar(
            sa.text(
                "SELECT 'lz4' = ANY (enumvals) FROM pg_catalog.pg_settings"
                " WHERE name = 'default_toast_compression'"
            )
        )
    )
