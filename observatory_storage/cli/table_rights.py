"""What a role may do with the tables, and what a writer has to be allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from observatory_storage.tables import EVENTS, LOG_FRAMES, PAYLOAD_FRAMES, TABLES

__all__ = ["PRIVILEGES", "SESSION", "lacking_to_write"]

# The role's privileges on each table: one row for each name, with NULLs where the table is missing.
# Only the owner of a table can attach a partition.
PRIVILEGES: Final = sa.text("""
    SELECT wanted.name,
           pg_catalog.has_table_privilege(found.oid, 'SELECT') AS "SELECT",
           pg_catalog.has_table_privilege(found.oid, 'INSERT') AS "INSERT",
           pg_catalog.has_table_privilege(found.oid, 'UPDATE') AS "UPDATE",
           pg_catalog.has_table_privilege(found.oid, 'DELETE') AS "DELETE",
           pg_catalog.pg_has_role(found.relowner, 'USAGE') AS owned
      FROM pg_catalog.unnest(CAST(:names AS text[])) AS wanted (name)
      LEFT JOIN (pg_catalog.pg_class AS found
                 JOIN pg_catalog.pg_namespace AS place
                   ON place.oid = found.relnamespace AND place.nspname = :schema)
        ON found.relname = wanted.name
     ORDER BY wanted.name
""")
# The privileges that writers need. Rows are kept or replaced as the registry of tables says; events
# and frames may become fewer.
_ALL: Final = ("SELECT", "INSERT", "UPDATE", "DELETE")
_NEEDED_TO_WRITE: Final[Mapping[str, Sequence[str]]] = {
    **{
        name: _ALL[:3] if table.on_conflict != "keep" else _ALL[:2]
        for name, table in TABLES.items()
    },
    **dict.fromkeys((EVENTS.name, PAYLOAD_FRAMES.name, LOG_FRAMES.name), _ALL),
    **dict.fromkeys(("model_pricing", "rollup_state"), ("SELECT",)),
    **dict.fromkeys(("payload_unindexed", "span_changes"), ("INSERT",)),
}
SESSION: Final = sa.text("""
    SELECT current_user AS role,
           pg_catalog.current_setting('transaction_read_only') = 'on' AS read_only,
           pg_catalog.has_schema_privilege(oid, 'CREATE') AS may_create
      FROM pg_catalog.pg_namespace
     WHERE nspname = :schema
""")


def lacking_to_write(tables: Sequence[sa.Row[Any]]) -> str:
    """The privileges that a writer would need and the role has not, as SQL says them."""
    by_privilege: dict[str, list[str]] = {}
    for row in tables:
        for privilege in _NEEDED_TO_WRITE.get(row.name, ()):
            if not row._mapping[privilege]:
                by_privilege.setdefault(privilege, []).append(row.name)
    return "; no ".join(f"{each} on {', '.join(names)}" for each, names in by_privilege.items())
