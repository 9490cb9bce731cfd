"""Runs the Alembic migrations on a given engine; `alembic/env.py` and the pool both come here.

Everything of the package lives in one schema, with an ``alembic_version`` of its own there. One
transaction takes an advisory lock, brings the schema to the wanted revision and commits, so that
processes that start together migrate once, and a failure leaves what was there before. The lock
belongs to that transaction rather than to the session: pgbouncer in transaction mode can hand the
next transaction to another session.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
import tenacity
from alembic import command
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError

from observatory_storage.errors import MigrationError, sqlstate_of, translate, translated
from observatory_storage.layout import advisory_key
from observatory_storage.models import Base

__all__ = [
    "comparison",
    "current",
    "downgrade",
    "head",
    "pending",
    "run",
    "upgrade",
    "write_sql",
]

# A migration that waits for a lock on a busy table makes everyone behind it wait too: it gives up
# after this long and tries again.
LOCK_TIMEOUT: Final = "5s"
_LOCK_ATTEMPTS: Final = 6
# How long a process waits for another one that is migrating the same schema.
_PATIENCE_SECONDS: Final = 600.0
_BLOCKED: Final = frozenset({"55P03", "40P01"})  # lock_timeout ran out, deadlock detected
# Marks a schema that a migration created, so that the downgrade knows to drop it.
_CREATED: Final = "created by observatory_storage"

# Stands in generated operations where the migration names its schema.
_SCHEMA_MARK: Final = "<schema>"

# Alembic keeps the running environment in module globals: one migration a process at a time.
_one_at_a_time = threading.RLock()


def upgrade(engine: sa.Engine, schema: str = "public", revision: str = "head") -> None:
    """Bring the schema up to a revision, creating the schema if it is not there.

    Raises:
        MigrationError: the migration failed (nothing was changed), the schema is at a revision
            that this version does not know, or another process has been migrating for too long.
        ConnectionLost, PoolError: there is no connection.
    """
    _command(engine, schema, lambda config: command.upgrade(config, revision))


def downgrade(engine: sa.Engine, schema: str = "public", revision: str = "base") -> None:
    """Take the schema down to a revision; ``base`` removes everything, all rows included.

    At ``base`` the partitions and ``alembic_version`` go too, and the schema itself when a
    migration had created it and nothing else is in it.

    Raises:
        MigrationError, ConnectionLost, PoolError: as `upgrade` does.
    """
    _command(engine, schema, lambda config: command.downgrade(config, revision))


def current(engine: sa.Engine, schema: str = "public") -> str | None:
    """The revision that the schema is at; None where nothing has been migrated."""
    with translated(), engine.connect() as connection:
        return _migration_context(connection, schema).get_current_revision()


def head() -> str:
    """The newest revision that this version of the package knows."""
    newest = _scripts().get_current_head()
    if newest is None:
        raise MigrationError("the migrations are missing: there is no script")
    return newest


def pending(engine: sa.Engine, schema: str = "public") -> list[str]:
    """The revisions that `upgrade` would apply, in their order.

    Raises:
        MigrationError: the schema is at a revision that this version does not know.
    """
    at = current(engine, schema)
    scripts = _scripts()
    _check_known(scripts, at, schema)
    waiting = [script.revision for script in scripts.iterate_revisions("heads", at or "base")]
    return [revision for revision in reversed(waiting) if revision != at]


def run(
    environment: EnvironmentContext,
    connection: sa.Connection,
    schema: str,
    *,
    compare: bool = False,
) -> None:
    """Run the environment's command on the schema, locked, in one transaction: for ``env.py``.

    Args:
        connection: one that is not in a transaction.
        compare: the command compares the tables with the models (autogenerate, check).

    Raises:
        MigrationError: see `upgrade`.
    """
    # The transaction is Alembic's own, so that a migration may use its `autocommit_block`.
    options = comparison(connection, schema) if compare else {}
    environment.configure(connection=connection, version_table_schema=schema, **options)
    environment.config.attributes["schema_mark"] = _SCHEMA_MARK

    @tenacity.retry(
        retry=tenacity.retry_if_exception(lambda error: sqlstate_of(error) in _BLOCKED),
        stop=tenacity.stop_after_attempt(_LOCK_ATTEMPTS),
        wait=tenacity.wait_random_exponential(multiplier=0.2, max=5),
        reraise=True,
    )
    def attempt() -> bool:
        with environment.begin_transaction():
            if not _try_lock(connection, schema):
                return False
            # Neither a timeout of the session nor one of the role stops a long migration.
            connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
            connection.execute(sa.text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
            _check_known(environment.script, _revision_of(environment), schema)
            _create_schema(connection, schema)
            environment.run_migrations()
            if _revision_of(environment) is None:
                _remove_traces(connection, schema)
            return True

    # Asked for again and again rather than waited for: a waiting statement holds a snapshot, and
    # CREATE INDEX CONCURRENTLY in the process that has the lock would wait for that.
    locked = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda done: not done),
        stop=tenacity.stop_after_delay(_PATIENCE_SECONDS),
        wait=tenacity.wait_random(0.02, 0.2),
        retry_error_callback=lambda _: False,
    )
    if not locked(attempt):
        raise MigrationError(
            f"schema {schema!r}: another process has been migrating it for"
            f" {_PATIENCE_SECONDS:.0f} s"
        )


def write_sql(environment: EnvironmentContext, schema: str) -> None:
    """Print the environment's command as SQL, without a connection: ``alembic upgrade --sql``."""
    environment.configure(
        dialect_name="postgresql",
        literal_binds=True,
        version_table_schema=schema,
    )
    with environment.begin_transaction():
        environment.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        environment.execute(f"CREATE SCHEMA IF NOT EXISTS {_quoted(schema)}")
        environment.run_migrations()


def comparison(connection: sa.Connection, schema: str) -> dict[str, Any]:
    """Alembic's options to compare the schema with the models, partitions left out.

    The models name no schema, so the one to compare becomes this connection's default.
    """
    connection.execute(sa.text(f"SET search_path TO {_quoted(schema)}"))
    connection.commit()
    connection.dialect.default_schema_name = schema
    return {
        "target_metadata": Base.metadata,
        "compare_type": True,
        "compare_server_default": True,
        "include_name": _is_ours,
        "process_revision_directives": _mark_schema,
    }


def _is_ours(name: str | None, kind: str, _: object) -> bool:
    # Partitions come and go without a migration, and an application's tables are its own: nothing
    # generates their removal. A table of ours that goes is dropped by hand.
    return kind != "table" or name in Base.metadata.tables


def _mark_schema(_: object, __: object, directives: list[Any]) -> None:
    """Have every generated operation name the schema; the template makes a variable of the mark."""
    waiting = [ops for script in directives for ops in (script.upgrade_ops, script.downgrade_ops)]
    while waiting:
        operation = waiting.pop()
        waiting.extend(getattr(operation, "ops", ()))
        if hasattr(operation, "schema"):
            operation.schema = _SCHEMA_MARK


def _command(engine: sa.Engine, schema: str, action: Callable[[Config], None]) -> None:
    with _one_at_a_time:
        with translated():
            connection = engine.connect()
        with connection, _migration_errors(schema):
            config = _config()
            config.attributes["connection"] = connection
            config.attributes["schema"] = schema
            action(config)


@contextmanager
def _migration_errors(schema: str) -> Iterator[None]:
    try:
        yield
    except MigrationError:
        raise
    except CommandError as error:
        raise MigrationError(f"schema {schema!r}: {error}") from error
    except Exception as error:  # a migration is code: whatever it raises is a failed migration
        known = translate(error)
        if known is error:  # already one of ours, with its own cause
            raise
        message = str(known) if known else f"{type(error).__name__}: {error}"
        retryable = known.retryable if known else False
        raise MigrationError(f"schema {schema!r}: {message}", retryable=retryable) from error


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_location()).replace("%", "%%"))
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _location() -> Path:
    """Where the scripts are: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    for place in (package / "_alembic", package.parent / "alembic"):
        if (place / "env.py").is_file():
            return place
    raise MigrationError(f"the migrations are missing: neither in {package} nor beside it")


def _migration_context(connection: sa.Connection, schema: str) -> MigrationContext:
    return MigrationContext.configure(connection, opts={"version_table_schema": schema})


def _revision_of(environment: EnvironmentContext) -> str | None:
    return environment.get_context().get_current_revision()


def _check_known(scripts: ScriptDirectory, revision: str | None, schema: str) -> None:
    known = {script.revision for script in scripts.walk_revisions()}
    if revision is not None and revision not in known:
        raise MigrationError(
            f"schema {schema!r} is at revision {revision!r}, which this version of"
            f" observatory_storage (up to {scripts.get_current_head()!r}) does not know:"
            " a newer version has migrated it (install that one), or the application's own"
            " Alembic uses the schema (give the storage another one, by DB_SCHEMA)"
        )


def _try_lock(connection: sa.Connection, schema: str) -> bool:
    statement = sa.text("SELECT pg_catalog.pg_try_advisory_xact_lock(:key)")
    return bool(connection.scalar(statement, {"key": advisory_key("migrations", schema)}))


def _create_schema(connection: sa.Connection, schema: str) -> None:
    # Looked for first: IF NOT EXISTS needs the CREATE privilege even when it has nothing to do.
    if not sa.inspect(connection).has_schema(schema):
        quoted = _quoted(schema)
        connection.execute(sa.text(f"CREATE SCHEMA {quoted}"))
        connection.execute(sa.text(f"COMMENT ON SCHEMA {quoted} IS '{_CREATED}'"))


def _remove_traces(connection: sa.Connection, schema: str) -> None:
    """Drop the version table, and the schema if a migration made it and it is empty now."""
    quoted = _quoted(schema)
    connection.execute(sa.text(f"DROP TABLE IF EXISTS {quoted}.alembic_version"))
    empty = sa.text(
        "SELECT true FROM pg_catalog.pg_namespace AS n WHERE nspname = :schema"
        " AND pg_catalog.obj_description(n.oid, 'pg_namespace') = :created"
        " AND NOT EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = n.oid)"
        " AND NOT EXISTS (SELECT FROM pg_catalog.pg_type WHERE typnamespace = n.oid)"
        " AND NOT EXISTS (SELECT FROM pg_catalog.pg_proc WHERE pronamespace = n.oid)"
    )
    if connection.scalar(empty, {"schema": schema, "created": _CREATED}):
        connection.execute(sa.text(f"DROP SCHEMA {quoted}"))


def _quoted(schema: str) -> str:
    """The schema's name as `sqlalchemy.text` wants it: there a colon begins a parameter."""
    return '"' + schema.replace('"', '""').replace(":", "\\:") + '"'
