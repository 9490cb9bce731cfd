"""Large values of log records, compressed together, beside their rows.

Revision ID: 0018
Revises: 0017
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import sqlalchemy as sa
from alembic import context, op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

# Column of observatory_logs -> its comment before, as migration 0016 gave it.
_COLUMNS: Final = {"body_json": "A body that is not text.", "attributes": "Its attributes."}
_PREVIEWS: Final = "Large values are previews where log_payload_previews has their key."


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    time = sa.DateTime(timezone=True)
    op.create_table(
        "log_frames",
        sa.Column("trace_id", sa.Uuid(), nullable=False),
        sa.Column("start_time", time, nullable=False),
        sa.Column("id", sa.BigInteger(), nullable=False, autoincrement=False),
        sa.Column("value_bytes", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.Column("packed_ids", sa.ARRAY(sa.BigInteger())),
        sa.Column("created_at", time, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("trace_id", "start_time", "id", name="pk_log_frames"),
        schema=schema,
        postgresql_partition_by="RANGE (start_time)",
    )
    quoted = _quoted(schema)
    # The data are compressed already.
    op.execute(f"ALTER TABLE {quoted}.log_frames ALTER COLUMN data SET STORAGE EXTERNAL")
    op.add_column("logs", sa.Column("payload_frame", sa.BigInteger()), schema=schema)
    op.add_column("logs", sa.Column("payload_digests", JSONB()), schema=schema)
    # security_invoker: otherwise a role that may read the view alone would read records through it.
    op.execute(f"""
        CREATE VIEW {quoted}.log_payload_previews WITH (security_invoker = true) AS
        SELECT o.timestamp, o.id, o.trace_id, o.span_id, c.key AS "column", d.key,
               CASE WHEN c.key = 'attributes' THEN o.attributes ->> d.key
                    WHEN pg_catalog.jsonb_typeof(o.body_json) = 'object' THEN o.body_json ->> d.key
                    ELSE o.body_json #>> '{{}}'
               END AS preview, d.value AS digest, o.payload_frame
          FROM {quoted}.logs AS o
         CROSS JOIN LATERAL pg_catalog.jsonb_each(o.payload_digests) AS c
         CROSS JOIN LATERAL pg_catalog.jsonb_each_text(c.value) AS d
         WHERE o.payload_frame IS NOT NULL
    """)  # noqa: S608 - no value but the name of the schema, which is quoted
    _comment(quoted, {column: f"{told} {_PREVIEWS}" for column, told in _COLUMNS.items()})


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    _refuse_frames(schema)
    _comment(_quoted(schema), _COLUMNS)
    op.execute(f"DROP VIEW {_quoted(schema)}.log_payload_previews")
    op.drop_column("logs", "payload_digests", schema=schema)
    op.drop_column("logs", "payload_frame", schema=schema)
    op.drop_table("log_frames", schema=schema)


def _quoted(schema: str | None) -> str:
    return '"' + (schema or "public").replace('"', '""').replace(":", "\\:") + '"'


def _comment(schema: str, comments: Mapping[str, str]) -> None:
    for column, told in comments.items():
        op.execute(f"COMMENT ON COLUMN {schema}.observatory_logs.{column} IS '{told}'")


def _refuse_frames(schema: str | None) -> None:
    """Refuse to drop values: records would be left with previews."""
    if context.is_offline_mode():
        return
    frames = sa.table("log_frames", schema=schema)
    if op.get_bind().scalar(sa.select(sa.exists(sa.select(sa.literal(1)).select_from(frames)))):
        raise RuntimeError(
            "log_frames has values of log records, which would be lost: first run"
            " `observatory-storage payloads convert --to inline`"
        )
