"""A view of what SQL sees of payload frames, and notes on where maintenance has moved values.

Revision ID: 0015
Revises: 0014
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    quoted = '"' + (schema or "public").replace('"', '""').replace(":", "\\:") + '"'
    # security_invoker: otherwise a role that may read the view alone would read spans through it.
    op.execute(f"""
        CREATE VIEW {quoted}.payload_previews WITH (security_invoker = true) AS
        SELECT o.trace_id, o.span_id, o.start_time, NULL\\:\\:integer AS position,
               d.key, o.attributes ->> d.key AS preview, d.value AS digest, o.payload_frame
          FROM {quoted}.trace_spans AS o
         CROSS JOIN LATERAL pg_catalog.jsonb_each_text(o.payload_digests) AS d
         WHERE o.payload_frame IS NOT NULL
         UNION ALL
        SELECT o.trace_id, o.span_id, o.span_start_time, o.position,
               d.key, o.attributes ->> d.key, d.value, o.payload_frame
          FROM {quoted}.trace_events AS o
         CROSS JOIN LATERAL pg_catalog.jsonb_each_text(o.payload_digests) AS d
         WHERE o.payload_frame IS NOT NULL
    """)  # noqa: S608 - no value but the name of the schema, which is quoted
    for column in (
        sa.Column("payload_rule", sa.Text(collation="C")),
        sa.Column("payload_after", sa.Uuid()),
        sa.Column("payloads_moved_at", sa.DateTime(timezone=True)),
    ):
        op.add_column("partition_states", column, schema=schema)


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    quoted = '"' + (schema or "public").replace('"', '""').replace(":", "\\:") + '"'
    for name in ("payloads_moved_at", "payload_after", "payload_rule"):
        op.drop_column("partition_states", name, schema=schema)
    op.execute(f"DROP VIEW {quoted}.payload_previews")
