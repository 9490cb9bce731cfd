"""${message}

Revision ID: ${up_revision}
Revises: ${down_revision | comma,n}

Rules for a migration (remove this paragraph when it keeps them):

* Everything is qualified: begin with `schema = op.get_context().version_table_schema`, pass
  `schema=schema`, and quote it in SQL text. Do not import the
  models: they change, a migration does not.
* All of it runs in one transaction that holds an advisory lock, with a lock_timeout; on a timeout
  it is rolled back and tried again. All locks are held until it commits, and a reader or writer
  must not wait for more than a second: short statements only; no rewrite of a table (a new
  column is nullable or has a constant default), no UPDATE of all rows; a new CHECK is NOT VALID
  first and validated in a later migration.
* Writers of the release before go on writing while others have been upgraded: no column that they
  give goes or is renamed, and what they do not give has a default.
* An index on a table that has rows is built CONCURRENTLY and IF NOT EXISTS, in a migration of its
  own, within `with op.get_context().autocommit_block():`. That commits, so the lock is gone and
  another process may do the same: the block must stand being run twice, and come first.
* A partitioned parent cannot have CONCURRENTLY: CREATE INDEX ... ON ONLY the parent, then
  CONCURRENTLY on each partition, then ALTER INDEX ... ATTACH PARTITION.
* A partition is made by CREATE TABLE (LIKE parent INCLUDING ALL) and ATTACH PARTITION, never by
  PARTITION OF; DETACH and DROP need the lock_timeout and a retry. No DEFAULT partition.
* Unique keys contain the time column and the column to shard by. No foreign key between
  partitioned tables, no trigger, no extension, nothing that needs a superuser, and nothing that
  depends on the time zone or search_path of the session.
* `downgrade` takes back exactly what `upgrade` did. The tests compare the result with the models.
"""

from __future__ import annotations

import sqlalchemy as sa

from alembic import op
${imports if imports else ""}

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}


<%
    def body(operations):
        if not operations:
            return "pass"
        named = operations.replace(repr(config.attributes.get("schema_mark")), "schema")
        return "schema = op.get_context().version_table_schema\n    " + named
%>
def upgrade() -> None:
    ${body(upgrades)}


def downgrade() -> None:
    ${body(downgrades)}
