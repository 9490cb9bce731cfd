"""Index log records by the names of their events.

Existing partitions get the new index from `build_partition_indexes`, which builds it CONCURRENTLY.
New partitions have it from the beginning. It leaves out records with no more than a text body, so
that these cost nothing more to write.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    table = '"' + (schema or "public").replace('"', '""').replace(":", "\\:") + '".logs'
    op.execute(
        sa.text(
            f"CREATE INDEX ix_logs_event_name ON ONLY {table} (event_name, timestamp) WHERE"
            " body_json IS NOT NULL OR event_name IS NOT NULL OR attributes ? 'event.name'"
        )
    )


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    op.drop_index("ix_logs_event_name", "logs", schema=schema)
