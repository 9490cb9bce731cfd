"""Compress the JSON columns of revision 0003 with lz4, as all others, if the server supports it.

New partitions have it from the beginning. Existing partitions keep what they have, since these
values are short and seldom compressed at all.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context, op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_COLUMNS = ("token_details", "reported_usage")


def upgrade() -> None:
    if not context.is_offline_mode() and _server_has_lz4():
        _set_compression("lz4")


def downgrade() -> None:
    if not context.is_offline_mode() and _server_has_lz4():
        _set_compression("default")


def _set_compression(method: str) -> None:
    schema = op.get_context().version_table_schema
    table = '"' + (schema or "public").replace('"', '""').replace(":", "\\:") + '".trace_spans'
    changes = ", ".join(f"ALTER COLUMN {column} SET COMPRESSION {method}" for column in _COLUMNS)
    op.execute(sa.text(f"ALTER TABLE {table} {changes}"))


def _server_has_lz4() -> bool:
    return bool(
        op.get_bind().scalar(
            sa.text(
                "SELECT 'lz4' = ANY (enumvals) FROM pg_catalog.pg_settings"
                " WHERE name = 'default_toast_compression'"
            )
        )
    )
