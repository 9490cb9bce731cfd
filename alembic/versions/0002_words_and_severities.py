"""Index the words of log bodies in another way, and errors that only a text names.

Existing partitions get the new indexes from `build_partition_indexes`, which builds them
CONCURRENTLY: a build over all log records would take too long for a migration. A search that finds
no index reads the rows. New partitions have the indexes from the beginning.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_BODY = "left(body, 100000)"
_APART = (
    r"[\u00A0-\u00A9\u00AB-\u00B4\u00B6-\u00B9\u00BB-\u00BF\u00D7\u00F7\u0E00-\u0EFF\u1000-\u11FF"
    r"\u1780-\u17FF\u2000-\u2BFF\u2E00-\u9FFF\uA960-\uA97F\uAC00-\uD7FF\uF900-\uFAFF\uFE30-\uFE4F"
    r"\uFF00-\uFFEF\U0001F000-\U0001FAFF\U00020000-\U0003FFFF]"
)
_ERROR_NAMES = (
    *("ALERT", "CRIT", "CRITICAL", "DPANIC", "EMERG", "EMERGENCY", "ERR", "ERROR", "ERROR2"),
    *("ERROR3", "ERROR4", "FATAL", "FATAL2", "FATAL3", "FATAL4", "PANIC", "SEVERE"),
)


def upgrade() -> None:
    schema = op.get_context().version_table_schema
    _drop(schema)
    words = _BODY
    for joint in "<&./-+@~\u2019":
        words = f"replace({words}, '{joint}', ' ')"
    words = rf"regexp_replace({words}, '({_APART})', ' \1 ', 'g')"
    names = ", ".join(f"'{name}'" for name in _ERROR_NAMES)
    _create(
        schema,
        "ONLY ",
        words,
        f"severity_number >= 17 OR severity_number IS NULL AND upper(severity_text) IN ({names})",
    )


def downgrade() -> None:
    schema = op.get_context().version_table_schema
    _drop(schema)
    _create(schema, "", _BODY, "severity_number >= 17")


def _drop(schema: str | None) -> None:
    for name in ("ix_logs_body", "ix_logs_errors"):
        op.drop_index(name, "logs", schema=schema)


def _create(schema: str | None, only: str, words: str, errors: str) -> None:
    table = '"' + (schema or "public").replace('"', '""').replace(":", "\\:") + '".logs'
    for name, rest in (
        ("ix_logs_body", f"USING gin (to_tsvector('simple'\\:\\:regconfig, {words}))"),
        ("ix_logs_errors", f"(service_name, timestamp) WHERE {errors}"),
    ):
        op.execute(sa.text(f"CREATE INDEX {name} ON {only}{table} {rest}"))
