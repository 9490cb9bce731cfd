"""Find the days of a session, and of the names and kinds of a service's spans, in rollups.

Rollups that were computed before have no kind. They are marked, so that they are computed anew.
Until then, spans answer instead.

Revision ID: 0011
Revises: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    for unit in ("minute", "hour", "day"):
        kind = sa.Column("kind", sa.Text(collation="C"))
        op.add_column(f"span_rollups_{unit}", kind, schema=schema)
    quoted = '"' + (schema or "public").replace('"', '""').replace(":", "\\:") + '"'
    op.execute(
        f"INSERT INTO {quoted}.span_changes (start_time, end_time)"  # noqa: S608 - quoted
        f" SELECT min(bucket), max(bucket) + interval '24 hours' FROM {quoted}.span_rollups_day"
        " HAVING count(*) > 0"
    )
    op.create_index(
        "ix_span_rollups_day",
        "span_rollups_day",
        ["service_name", "name", "kind", "bucket"],
        schema=schema,
    )
    op.create_index(
        "ix_session_rollups_day", "session_rollups_day", ["session_id", "bucket"], schema=schema
    )


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    op.drop_index("ix_session_rollups_day", "session_rollups_day", schema=schema)
    op.drop_index("ix_span_rollups_day", "span_rollups_day", schema=schema)
    for unit in ("day", "hour", "minute"):
        op.drop_column(f"span_rollups_{unit}", "kind", schema=schema)
