"""What PostgreSQL's catalog says of a schema, to compare one with another."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool


def engine_for(url: str, **options: Any) -> sa.Engine:
    return sa.create_engine(
        "postgresql+psycopg://" + url.partition("://")[2], poolclass=NullPool, **options
    )


# Everything that tells two versions of a table apart, by its name without the schema. The order of
# its columns does not: nothing depends on it, and a migration can add a column only at the end.
DEFINITIONS = {
    "tables": """
        SELECT c.relname, c.relkind::text, c.relpersistence::text, c.reloptions,
               pg_get_partkeydef(c.oid)
        FROM pg_class c WHERE c.relnamespace = :schema AND c.relkind IN ('r', 'p', 'v', 'S')""",
    "columns": """
        SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), l.collname,
               a.attnotnull, pg_get_expr(d.adbin, d.adrelid), a.attidentity::text
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        LEFT JOIN pg_collation l ON l.oid = a.attcollation
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relnamespace = :schema AND c.relkind IN ('r', 'p') AND a.attnum > 0
              AND NOT a.attisdropped""",
    "indexes": """
        SELECT c.relname, i.relname, pg_get_indexdef(i.oid), i.reloptions
        FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
        JOIN pg_class c ON c.oid = x.indrelid WHERE c.relnamespace = :schema""",
    "constraints": """
        SELECT c.relname, k.conname, pg_get_constraintdef(k.oid)
        FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
        WHERE c.relnamespace = :schema""",
    "triggers": """
        SELECT c.relname, t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
        WHERE c.relnamespace = :schema""",
}


def definitions(engine: sa.Engine, schema: str) -> dict[str, list[str]]:
    with engine.connect() as connection:
        # Then names of the schema's own are printed without it.
        quoted = connection.dialect.identifier_preparer.quote_identifier(schema)
        connection.exec_driver_sql(f"SET search_path TO {quoted}")
        oid = connection.scalar(
            sa.text("SELECT oid FROM pg_namespace WHERE nspname = :name"), {"name": schema}
        )
        return {
            kind: sorted(
                str(tuple(row)).replace(quoted, "schema").replace(f"{schema}.", "schema.")
                for row in connection.execute(sa.text(query), {"schema": oid})
                if row[0] != "observatory_version"
            )
            for kind, query in DEFINITIONS.items()
        }


def everything(engine: sa.Engine) -> set[tuple[Any, ...]]:
    """Whatever a database holds besides rows."""
    query = """
        SELECT 'schema', nspname::text, '' FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp'
        UNION ALL SELECT 'relation', relnamespace::regnamespace::text, relname::text FROM pg_class
        UNION ALL SELECT 'type', typnamespace::regnamespace::text, typname::text FROM pg_type
        UNION ALL SELECT 'function', pronamespace::regnamespace::text, proname::text FROM pg_proc
        UNION ALL SELECT 'constraint', connamespace::regnamespace::text, conname::text
            FROM pg_constraint
        UNION ALL SELECT 'extension', '', extname::text FROM pg_extension
        UNION ALL SELECT 'comment', classoid::regclass::text, description FROM pg_description
    """
    with engine.connect() as connection:
        return {tuple(row) for row in connection.execute(sa.text(query))}
