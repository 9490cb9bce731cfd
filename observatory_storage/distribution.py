"""The layout of the tables: on one server, or sharded over several by Citus.

The registry of tables says which tables are distributed and by which column (`tables.DISTRIBUTED`).
A migration distributes them. Each connection of a pool knows the layout, for the few statements
that differ: see `is_sharded`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final, Literal, NamedTuple, cast
from uuid import UUID

import psycopg
import sqlalchemy as sa

from observatory_storage.config import PostgresConfig
from observatory_storage.errors import (
    ConfigError,
    Conflict,
    ConnectionLost,
    MigrationError,
    StorageError,
    translated,
)
from observatory_storage.schema_state import quoted_name
from observatory_storage.tables import DISTRIBUTED, REFERENCE_TABLES, TRACES

__all__ = [
    "TRANSACTION_SETTINGS",
    "Layout",
    "any_layout",
    "apply_layout",
    "check_connections",
    "check_layout",
    "commits_end",
    "compile_for",
    "ids_by_shard",
    "is_for_shards",
    "is_sharded",
    "layout_of",
    "layout_options",
    "planned_rows",
    "stored_layout",
    "wait_for_commits",
]

_any_layout: ContextVar[bool] = ContextVar("_any_layout", default=False)
_OPTION: Final = "observatory_storage_layout"


class Layout(NamedTuple):
    """A layout, as it is configured.

    Attributes:
        name: "plain" or "citus".
        shard_count: the number of shards of a table that is distributed.
    """

    name: Literal["plain", "citus"]
    shard_count: int


def layout_options(config: PostgresConfig) -> dict[str, Any]:
    """The execution options by which connections know the layout."""
    return {_OPTION: Layout(config.layout, config.shard_count)}


def layout_of(connection: sa.Connection | sa.Engine) -> Layout | None:
    """The configured layout; None on an engine that no pool has made."""
    return cast("Layout | None", connection.get_execution_options().get(_OPTION))


def compile_for(dialect: sa.Dialect, config: PostgresConfig) -> None:
    """Have statements that are compiled for this dialect be those of the layout."""
    if config.layout == "citus":
        setattr(dialect, _OPTION, True)


def is_for_shards(dialect: sa.Dialect) -> bool:
    """Whether statements that are compiled for this dialect go to shards."""
    return getattr(dialect, _OPTION, False)


def is_sharded(connection: sa.Connection | sa.Engine) -> bool:
    """Whether the tables have shards on several servers."""
    layout = layout_of(connection)
    return layout is not None and layout.name == "citus"


TRANSACTION_SETTINGS: Final = (
    "SET LOCAL citus.multi_shard_modify_mode TO 'sequential';"
    " SET LOCAL citus.enable_deadlock_prevention TO off"
)
"""What each transaction sets where tables have shards, so that writers do not deadlock.

Writers lock the rows of traces in one order, shard after shard. With its own settings, Citus works
on all shards at once; and it locks whole shards for an UPDATE of several, for which a writer that
has locked rows waits while another one waits for these rows.
"""


def ids_by_shard(
    connection: sa.Connection, ids: Iterable[UUID], table: str = TRACES.name
) -> list[list[UUID]]:
    """The ids of each shard, in the order in which writers lock the rows of traces.

    Args:
        connection: a connection to the coordinator.
        ids: values of the column that the table is distributed by.
        table: the table. Tables beside it have the rows of an id on the same shard.
    """
    listed = list(ids)
    if len(listed) < 2:
        return [listed] if listed else []
    translation = connection.get_execution_options().get("schema_translate_map") or {}
    schema = _unescaped(translation.get(None) or "public")
    return list(connection.scalars(_IDS_BY_SHARD, {"ids": listed, "table": f"{schema}.{table}"}))


_IDS_BY_SHARD: Final = sa.text(
    "SELECT array_agg(given.id ORDER BY given.id) FROM unnest(CAST(:ids AS uuid[])) AS given (id)"
    " GROUP BY pg_catalog.get_shard_id_for_distribution_column(CAST(:table AS regclass), given.id)"
    " ORDER BY pg_catalog.get_shard_id_for_distribution_column("
    "CAST(:table AS regclass), given.id)"
)


def planned_rows(document: Any) -> int:
    """The rows that the planner expects, by the answer to EXPLAIN (FORMAT JSON).

    Citus itself expects the same number always. The planners of the shards know better; with
    ``citus.explain_all_tasks`` the answer has the plans of all of them.
    """
    plan = document[0]["Plan"]
    tasks = plan.get("Distributed Query", {}).get("Job", {}).get("Tasks")
    if tasks is None:
        return int(plan["Plan Rows"])
    return sum(int(task["Remote Plan"][0][0]["Plan"]["Plan Rows"]) for task in tasks)


def commits_end(connection: sa.Connection, patience_secs: float) -> bool:
    """Whether the workers commit in time what the coordinator has committed before this call.

    The coordinator commits first, and then has the workers commit, which have prepared it. After
    the failure of a worker, Citus completes its commits by itself, by
    ``citus.recover_2pc_interval`` after the worker is back.

    Raises:
        StorageError: a worker cannot be reached.
    """
    committing = _prepared(connection)
    end = time.monotonic() + patience_secs
    while committing:
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
        committing &= _prepared(connection)
    return True


_COMMIT_PATIENCE_SECS: Final = 10.0


def wait_for_commits(
    connection: sa.Connection, patience_secs: float = _COMMIT_PATIENCE_SECS
) -> None:
    """Wait until the workers have committed what the snapshot of this transaction shows.

    Call it after the transaction has its snapshot, and before it reads from the workers.

    Raises:
        Conflict: a worker does not commit. A later call may succeed.
        StorageError: a worker cannot be reached.
    """
    if not commits_end(connection, patience_secs):
        raise Conflict("a worker of Citus has not committed a transaction yet", retryable=True)


def _prepared(connection: sa.Connection) -> set[str]:
    """The transactions that are prepared on workers."""
    found: set[str] = set()
    for is_answered, answer in connection.execute(_PREPARED):
        if not is_answered:
            raise StorageError(f"a worker of Citus cannot be asked: {answer}", retryable=True)
        found.update(filter(None, (answer or "").split(",")))
    return found


# The name of such a transaction begins: citus, group of the coordinator.
_PREPARED: Final = sa.text(
    "SELECT success, result FROM pg_catalog.run_command_on_workers("
    "'SELECT string_agg(gid, '','') FROM pg_catalog.pg_prepared_xacts"
    " WHERE database = current_database() AND starts_with(gid, ''citus_0_'')')"
)

# pg_dist_partition is a table of the extension, in the schema of PostgreSQL itself.
_HAS_CITUS: Final = "SELECT pg_catalog.to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL"
_TABLE_AND_CITUS: Final = (
    "SELECT c.oid, pg_catalog.to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL"
    " FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
    " WHERE n.nspname = %s AND c.relname = %s"
)
_IS_DISTRIBUTED: Final = (
    "SELECT FROM pg_catalog.pg_dist_partition WHERE logicalrelid = %s AND partmethod = 'h'"
)


def stored_layout(driver: psycopg.Connection[Any], schema: str) -> str | None:
    """The layout that the tables of a schema have; None if there are none."""
    row = driver.execute(_TABLE_AND_CITUS.encode(), (schema, TRACES.name)).fetchone()
    if row is None:
        return None
    oid, has_citus = row
    if has_citus and driver.execute(_IS_DISTRIBUTED.encode(), (oid,)).fetchone() is not None:
        return "citus"
    return "plain"


def check_layout(driver: psycopg.Connection[Any], schema: str, layout: Layout) -> bool:
    """Check that the tables have the layout; False if there are none yet.

    Raises:
        ConfigError: they have another one.
    """
    stored = stored_layout(driver, schema)
    if stored is None or stored == layout.name:
        return stored is not None
    if stored == "plain":
        raise ConfigError(
            f"postgres.layout is {layout.name!r}, but the tables of schema {schema!r} are not"
            " distributed: run `observatory-storage migrate`, which distributes them, or set"
            " DB_LAYOUT=plain"
        )
    raise ConfigError(
        f"postgres.layout is {layout.name!r}, but Citus distributes the tables of schema"
        f" {schema!r}: set DB_LAYOUT=citus"
    )


def apply_layout(connection: sa.Connection, schema: str, layout: Layout) -> None:
    """Distribute the tables that are not distributed yet, in the transaction of a migration.

    Citus moves their rows to the shards. Readers and writers wait meanwhile.

    Raises:
        MigrationError: the tables are distributed and shall be plain, or the extension is missing.
    """
    has_citus = connection.scalar(sa.text(_HAS_CITUS))
    if layout.name == "plain":
        if has_citus and _distributed_in(connection, schema):
            raise MigrationError(
                f"schema {schema!r}: Citus distributes its tables: set DB_LAYOUT=citus"
            )
        return
    if not has_citus:
        raise MigrationError(
            f"schema {schema!r}: the layout is 'citus', but the database has no extension citus:"
            " run CREATE EXTENSION citus in it, on the coordinator and on the workers"
        )
    done = _distributed_in(connection, schema)
    tables = sa.inspect(connection).get_table_names(schema)
    # Shards are made one after the other, on the connections that made those before.
    connection.execute(sa.text("SET LOCAL citus.multi_shard_modify_mode TO 'sequential'"))
    for name in REFERENCE_TABLES:
        if name in tables and name not in done:
            _run(connection, "create_reference_table(CAST(:name AS regclass))", schema, name)
    for table in DISTRIBUTED:
        if table.name not in tables or table.name in done:
            continue
        given: dict[str, Any] = {"column": table.distributed_by}
        call = "create_distributed_table(CAST(:name AS regclass), :column"
        if table.beside is None:
            call += ", colocate_with => 'none', shard_count => :shards"
            given["shards"] = layout.shard_count
        else:
            call += ", colocate_with => :beside"
            given["beside"] = f"{_unescaped(schema)}.{table.beside}"
        _run(connection, f"{call})", schema, table.name, **given)


def _run(connection: sa.Connection, call: str, schema: str, name: str, **given: Any) -> None:
    given["name"] = f"{_unescaped(schema)}.{name}"
    connection.execute(sa.text(f"SELECT pg_catalog.{call}"), given)


def _distributed_in(connection: sa.Connection, schema: str) -> frozenset[str]:
    return frozenset(
        connection.scalars(
            sa.text(
                "SELECT c.relname FROM pg_catalog.pg_dist_partition AS d"
                " JOIN pg_catalog.pg_class AS c ON c.oid = d.logicalrelid"
                " JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace"
                " WHERE n.nspname = :schema"
            ),
            {"schema": schema},
        )
    )


def _unescaped(schema: str) -> str:
    """The schema's name, quoted for a value: there a colon needs no backslash."""
    return quoted_name(schema).replace("\\:", ":")


@contextmanager
def any_layout() -> Iterator[None]:
    """Within the block, connect also to tables of another layout: for migrations."""
    token = _any_layout.set(True)
    try:
        yield
    finally:
        _any_layout.reset(token)


def check_connections(engine: sa.Engine, config: PostgresConfig) -> None:
    """Have an engine refuse tables of another layout, at its first connection that sees tables.

    Some statements are wrong in the other layout, without an error.
    """
    layout = Layout(config.layout, config.shard_count)
    is_checked = False

    @sa.event.listens_for(engine, "engine_connect")
    def check(connection: sa.Connection) -> None:
        nonlocal is_checked
        if is_checked or _any_layout.get():
            return
        driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
        # A pool that shares one connection, such as StaticPool, may be within a transaction.
        was_idle = driver.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        try:
            with translated():
                is_checked = check_layout(driver, config.schema_name, layout)
        except ConnectionLost as error:
            connection.invalidate(error)
            raise
        finally:
            if was_idle and not driver.closed:
                driver.rollback()
