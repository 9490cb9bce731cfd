"""Runs the Alembic migrations on a given engine; `alembic/env.py` and the pool both come here.

Everything of the package lives in one schema, with a version table of its own there, so that an
application's Alembic may use the same schema. One transaction takes an advisory lock, brings the
schema to the wanted revision and commits, so that processes that start together migrate once, and a
failure leaves what was there before. The lock belongs to that transaction rather than to the
session: pgbouncer in transaction mode can hand the next transaction to another session.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import alembic.context
import alembic.op
import sqlalchemy as sa
import tenacity
from alembic import command
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError

from observatory_storage import distribution, migration_locks, schema_state
from observatory_storage.errors import MigrationError, sqlstate_of, translate, translated
from observatory_storage.models import Base
from observatory_storage.processes import PerProcess

__all__ = [
    "comparison",
    "current",
    "downgrade",
    "head",
    "pending",
    "revisions",
    "run",
    "upgrade",
    "write_sql",
]

_LOCK_ATTEMPTS: Final = 60
# How long a process waits for another one that is migrating the same schema.
_PATIENCE_SECONDS: Final = 600.0
# Stands in generated operations where the migration names its schema.
_SCHEMA_MARK: Final = "<schema>"

_DUPLICATE_TABLE: Final = "42P07"
# Alembic keeps the running environment in module globals: one migration a process at a time.
_one_at_a_time: Final = PerProcess(threading.RLock)


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

    At ``base`` the partitions and the version table go too, and the schema itself when a migration
    had created it and nothing else is in it.

    Raises:
        MigrationError, ConnectionLost, PoolError: as `upgrade` does.
    """
    _command(engine, schema, lambda config: command.downgrade(config, revision))


def current(engine: sa.Engine, schema: str = "public") -> str | None:
    """The revision that the schema is at; None where nothing has been migrated."""
    with translated(), engine.connect() as connection:
        revision = _migration_context(connection, schema).get_current_revision()
        return revision or schema_state.former_revision(connection, schema, _known(_scripts()))


def head() -> str:
    """The newest revision that this version of the package knows."""
    newest = _scripts().get_current_head()
    if newest is None:
        raise MigrationError("the migrations are missing: there is no script")
    return newest


def revisions() -> list[str]:
    """The revisions that this version of the package knows, in their order."""
    return [script.revision for script in reversed(list(_scripts().walk_revisions()))]


def pending(engine: sa.Engine, schema: str = "public") -> list[str]:
    """The revisions that `upgrade` would apply, in their order.

    Raises:
        MigrationError: the schema is at a revision that this version does not know, or the
            database is not in UTF-8.
    """
    at = current(engine, schema)
    with translated(), engine.connect() as connection:
        schema_state.check_encoding(connection)
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
    environment.configure(
        connection=connection,
        version_table=schema_state.VERSION_TABLE,
        version_table_schema=schema,
        **options,
    )
    environment.config.attributes["schema_mark"] = _SCHEMA_MARK
    attempts = itertools.count(1)

    @tenacity.retry(
        retry=tenacity.retry_if_exception(migration_locks.is_blocked),
        stop=tenacity.stop_after_attempt(_LOCK_ATTEMPTS),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=2),
        reraise=True,
    )
    def attempt() -> bool:
        with environment.begin_transaction():
            if not migration_locks.try_lock(connection, schema):
                return False
            migration_locks.set_timeouts(connection)
            schema_state.check_encoding(connection)
            schema_state.create_schema(connection, schema)
            schema_state.adopt_former_version(
                environment.get_context(), connection, schema, _known(environment.script)
            )
            _check_known(environment.script, _revision_of(environment), schema)
            if next(attempts) > 1:
                migration_locks.lock_tables(connection, schema)
            before = schema_state.tables_of(connection, schema)
            environment.run_migrations()
            if before:
                made = schema_state.tables_of(connection, schema) - before
                schema_state.grant_as_on_spans(connection, schema, made)
            if _revision_of(environment) is None:
                schema_state.remove_schema(connection, schema)
            elif _revision_of(environment) == environment.script.get_current_head():
                schema_state.check_tables(connection, schema)
                if (layout := distribution.layout_of(connection)) is not None:
                    distribution.apply_layout(connection, schema, layout)
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
        version_table=schema_state.VERSION_TABLE,
        version_table_schema=schema,
    )
    with environment.begin_transaction():
        environment.execute(f"SET LOCAL lock_timeout = '{migration_locks.LOCK_TIMEOUT}'")
        environment.execute(f"CREATE SCHEMA IF NOT EXISTS {schema_state.quoted_name(schema)}")
        environment.run_migrations()


def comparison(connection: sa.Connection, schema: str) -> dict[str, Any]:
    """Alembic's options to compare the schema with the models, partitions left out.

    The models name no schema, so the one to compare becomes this connection's default.
    """
    connection.execute(sa.text(f"SET search_path TO {schema_state.quoted_name(schema)}"))
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
    with _one_at_a_time.get():
        with translated():
            connection = engine.connect()
        with connection, _outer_environment_kept(), _migration_errors(schema):
            config = _config()
            config.attributes["connection"] = connection
            config.attributes["schema"] = schema
            action(config)


@contextmanager
def _outer_environment_kept() -> Iterator[None]:
    """Keep the environment of a migration of the application that this one runs within.

    Alembic has one environment and one set of operations in module globals, and removes them when
    the inner migration ends.
    """
    outer = [getattr(module, "_proxy", None) for module in (alembic.context, alembic.op)]
    try:
        yield
    finally:
        for proxy in outer:
            if proxy is not None:
                proxy._install_proxy()


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
        if sqlstate_of(error) == _DUPLICATE_TABLE:
            message += (
                "; the schema has a table of this name that is not one of this package's:"
                " give the storage a schema of its own, by DB_SCHEMA"
            )
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
    return MigrationContext.configure(
        connection,
        opts={"version_table": schema_state.VERSION_TABLE, "version_table_schema": schema},
    )


def _revision_of(environment: EnvironmentContext) -> str | None:
    return environment.get_context().get_current_revision()


def _known(scripts: ScriptDirectory) -> set[str]:
    """The revisions that this version of the package knows."""
    return {script.revision for script in scripts.walk_revisions()}


def _check_known(scripts: ScriptDirectory, revision: str | None, schema: str) -> None:
    if revision is not None and revision not in _known(scripts):
        raise MigrationError(
            f"schema {schema!r} is at revision {revision!r}, which this version of"
            f" observatory_storage (up to {scripts.get_current_head()!r}) does not know:"
            " a newer version has migrated it: install that one"
        )
