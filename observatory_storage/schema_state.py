"""What a schema of this package is: its version table, its tables, its encoding.

The version of the schema is in a table of our own, so that an application's Alembic may use the
same schema. Earlier releases used ``alembic_version``. Their schemas are recognised by the tables.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from observatory_storage.errors import MigrationError
from observatory_storage.models import Base

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext

__all__ = [
    "VERSION_TABLE",
    "VIEWS",
    "adopt_former_version",
    "check_encoding",
    "check_tables",
    "create_schema",
    "former_revision",
    "grant_as_on_spans",
    "quoted_name",
    "remove_schema",
    "tables_of",
]

# The models do not name them: SQLAlchemy 2.0 has no views.
VIEWS: Final = frozenset(
    (
        "log_payload_previews",
        "observatory_costs_by_day",
        "observatory_data_points",
        "observatory_errors",
        "observatory_events",
        "observatory_logs",
        "observatory_metrics",
        "observatory_sessions",
        "observatory_span_facts",
        "observatory_spans",
        "observatory_traces",
        "payload_previews",
    )
)
# Marks a schema that a migration created, so that the downgrade knows to drop it.
_CREATED: Final = "created by observatory_storage"
# The tables of the first release, by which its schemas are known.
_FIRST_TABLES: Final = frozenset(
    ("traces", "trace_spans", "trace_events", "metrics", "metric_data_points", "logs")
)
# Not Alembic's ``alembic_version``, which the application's own migrations may use.
VERSION_TABLE: Final = "observatory_version"
# The table that versions were kept in before there was one of our own.
_FORMER_VERSION_TABLE: Final = "alembic_version"


def former_revision(connection: sa.Connection, schema: str, known: Collection[str]) -> str | None:
    """The revision of a schema that an earlier release of this package migrated."""
    tables = sa.inspect(connection).get_table_names(schema)
    if _FORMER_VERSION_TABLE not in tables or not _FIRST_TABLES.issubset(tables):
        return None
    statement = sa.text(
        f"SELECT version_num FROM {quoted_name(schema)}.{_FORMER_VERSION_TABLE}"  # noqa: S608 - quoted
        " WHERE version_num = ANY(:known)"
    )
    revision: str | None = connection.scalar(statement, {"known": list(known)})
    return revision


def adopt_former_version(
    context: MigrationContext, connection: sa.Connection, schema: str, known: Collection[str]
) -> None:
    """Move the version of a schema that an earlier release migrated into the table of our own."""
    if context.get_current_revision() is not None:
        return
    revision = former_revision(connection, schema, known)
    if revision is None:
        return
    context._ensure_version_table()
    former = f"{quoted_name(schema)}.{_FORMER_VERSION_TABLE}"
    for statement in (
        f"INSERT INTO {quoted_name(schema)}.{VERSION_TABLE} VALUES (:revision)",  # noqa: S608 - quoted
        f"DELETE FROM {former} WHERE version_num = :revision",  # noqa: S608 - quoted
    ):
        connection.execute(sa.text(statement), {"revision": revision})
    # What is left in it are the application's own revisions.
    if not connection.scalar(sa.text(f"SELECT count(*) FROM {former}")):  # noqa: S608 - quoted
        connection.execute(sa.text(f"DROP TABLE {former}"))


def check_encoding(connection: sa.Connection) -> None:
    """Make sure that the database holds every character.

    Raises:
        MigrationError: names its encoding, and says what to do.
    """
    encoding = connection.scalar(sa.text("SELECT current_setting('server_encoding')"))
    if encoding != "UTF8":
        raise MigrationError(
            f"the database has the encoding {encoding}, which does not hold all text: create one"
            " with CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8' and use that"
        )


def check_tables(connection: sa.Connection, schema: str) -> None:
    """Make sure that a schema at the newest revision has the tables and views.

    Raises:
        MigrationError: names those that it lacks.
    """
    missing = sorted((Base.metadata.tables.keys() | VIEWS) - tables_of(connection, schema))
    if missing:
        raise MigrationError(
            f"schema {schema!r} is at the newest revision but lacks {', '.join(missing)}: restore"
            f" them, or drop {VERSION_TABLE} and the others, and migrate again"
        )


def tables_of(connection: sa.Connection, schema: str) -> frozenset[str]:
    """The names of the package's tables and views that the schema has."""
    inspector = sa.inspect(connection)
    tables = Base.metadata.tables.keys() & inspector.get_table_names(schema)
    return VIEWS.intersection(inspector.get_view_names(schema)) | tables


def grant_as_on_spans(connection: sa.Connection, schema: str, tables: Collection[str]) -> None:
    """Grant on new tables what roles may do with spans, and on new views that they may read them.

    Otherwise writers that own nothing would fail until somebody grants it by hand.
    """
    granted = connection.execute(_PRIVILEGES_ON_SPANS, {"schema": schema}).all()
    for table in sorted(tables):
        for privilege, role in granted:
            if table in VIEWS and privilege != "SELECT":
                continue
            grantee = "PUBLIC" if role is None else quoted_name(role)
            statement = f"GRANT {privilege} ON {quoted_name(schema)}.{table} TO {grantee}"
            connection.execute(sa.text(statement))


_PRIVILEGES_ON_SPANS: Final = sa.text("""
    SELECT acl.privilege_type, role.rolname
      FROM pg_catalog.pg_class AS spans
      JOIN pg_catalog.pg_namespace AS place ON place.oid = spans.relnamespace
     CROSS JOIN LATERAL pg_catalog.aclexplode(spans.relacl) AS acl
      LEFT JOIN pg_catalog.pg_roles AS role ON role.oid = acl.grantee
     WHERE place.nspname = :schema AND spans.relname = 'trace_spans'
       AND acl.grantee <> spans.relowner
       AND acl.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
     ORDER BY 1, 2
""")


def create_schema(connection: sa.Connection, schema: str) -> None:
    """Create the schema if it is not there, and mark it as created by a migration."""
    # Looked for first: IF NOT EXISTS needs the CREATE privilege even when it has nothing to do.
    if not sa.inspect(connection).has_schema(schema):
        quoted = quoted_name(schema)
        connection.execute(sa.text(f"CREATE SCHEMA {quoted}"))
        connection.execute(sa.text(f"COMMENT ON SCHEMA {quoted} IS '{_CREATED}'"))


def remove_schema(connection: sa.Connection, schema: str) -> None:
    """Drop the version table, and the schema if a migration made it and it is empty now."""
    quoted = quoted_name(schema)
    connection.execute(sa.text(f"DROP TABLE IF EXISTS {quoted}.{VERSION_TABLE}"))
    empty = sa.text(
        "SELECT true FROM pg_catalog.pg_namespace AS n WHERE nspname = :schema"
        " AND pg_catalog.obj_description(n.oid, 'pg_namespace') = :created"
        " AND NOT EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = n.oid)"
        " AND NOT EXISTS (SELECT FROM pg_catalog.pg_type WHERE typnamespace = n.oid)"
        " AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc WHERE pronamespace = n.oid)"
    )
    if connection.scalar(empty, {"schema": schema, "created": _CREATED}):
        connection.execute(sa.text(f"DROP SCHEMA {quoted}"))


def quoted_name(schema: str) -> str:
    """The schema's name as `sqlalchemy.text` wants it: there a colon begins a parameter."""
    return '"' + schema.replace('"', '""').replace(":", "\\:") + '"'
