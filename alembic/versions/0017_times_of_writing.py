"""Index the times at which spans and data points were written, for tails.

Existing partitions get the new indexes from `build_partition_indexes`, which builds them
CONCURRENTLY. New partitions have them from the beginning. A BRIN index costs writers nothing that
can be measured.

Revision ID: 0017
Revises: 0016
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

TABLES = ("trace_spans", "metric_data_points")


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    quoted = '"' + (schema or "public").replace('"', '""').replace(":", "\\:") + '"'
    for table in TABLES:
        op.execute(
            sa.text(
                f"CREATE INDEX ix_{table}_created_at ON ONLY {quoted}.{table} USING brin"
                " (created_at) WITH (autosummarize = on, pages_per_range = 32)"
            )
        )


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    for table in TABLES:
        op.drop_index(f"ix_{table}_created_at", table, schema=schema)
