"""Vacuums the plain tables whose rows come and go: traces and rollups.

Autovacuum does the same, but may come minutes after a day of traces was deleted, while new rows
make the table grow. Partitions are frozen when they are closed, and dropped whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import sqlalchemy as sa

from observatory_storage.errors import translated
from observatory_storage.layout import PARTITIONED
from observatory_storage.lifecycle.run import Run
from observatory_storage.models import Base
from observatory_storage.serialization import Result

__all__ = ["VacuumedTables", "vacuum_tables"]

_LEAST_DEAD_ROWS: Final = 500
_DEAD_SHARE: Final = 0.1
# VACUUM only warns about a table that somebody else owns.
_WITH_DEAD_ROWS: Final = sa.text("""
    SELECT s.relname
      FROM pg_catalog.pg_stat_user_tables AS s
      JOIN pg_catalog.pg_class AS c ON c.oid = s.relid
     WHERE s.schemaname = :schema AND s.relname = ANY (:names)
       AND s.n_dead_tup > greatest(:least, :share * s.n_live_tup)
       AND pg_catalog.pg_has_role(c.relowner, 'USAGE')
     ORDER BY s.relname
""")


@dataclass(frozen=True, slots=True)
class VacuumedTables(Result):
    """The result of `vacuum_tables`.

    Attributes:
        tables: the tables that were vacuumed.
        is_complete: whether the deadline left time for all of them.
    """

    tables: tuple[str, ...] = ()
    is_complete: bool = True


def vacuum_tables(run: Run) -> VacuumedTables:
    """Vacuum and analyse the plain tables of which a tenth consists of dead rows.

    Readers and writers do not wait. A table that is locked is left to the next run.

    Raises:
        StorageError: PostgreSQL could not be used.
    """
    source = run.source
    given = {
        "schema": source.schema,
        "names": sorted(Base.metadata.tables.keys() - PARTITIONED.keys()),
        "least": _LEAST_DEAD_ROWS,
        "share": _DEAD_SHARE,
    }
    done: list[str] = []
    with translated(), source.engine.connect() as connection:
        names = connection.scalars(_WITH_DEAD_ROWS, given).all()
    for name in names:
        if run.deadline.is_over:
            return VacuumedTables(tuple(done), is_complete=False)
        _vacuum(run, name)
        run.progress(f"vacuumed {name}")
        done.append(name)
    return VacuumedTables(tuple(done))


def _vacuum(run: Run, name: str) -> None:
    with translated(), run.source.engine.connect() as any_connection:
        connection = any_connection.execution_options(isolation_level="AUTOCOMMIT")
        # Its settings are those of the session, so it is not returned to the pool.
        connection.detach()
        quote = connection.dialect.identifier_preparer.quote
        connection.exec_driver_sql("SET statement_timeout = 0")
        connection.exec_driver_sql(
            f"VACUUM (ANALYZE, SKIP_LOCKED) {quote(run.source.schema)}.{quote(name)}"
        )
