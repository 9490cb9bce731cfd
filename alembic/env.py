"""Alembic runs this module for each of its commands: it connects and calls the package.

`pool.run_migrations()` passes the connection and the schema. On the command line, both come from
`StorageConfig.from_env()`.
"""

from __future__ import annotations

from logging.config import fileConfig

from alembic import command, context
from alembic.util.exc import CommandError

from observatory_storage import migrate
from observatory_storage.config import StorageConfig
from observatory_storage.distribution import any_layout
from observatory_storage.engine import create_engine
from observatory_storage.errors import StorageError, translated

config = context.config


def on_the_command_line() -> None:
    if config.config_file_name is not None:
        fileConfig(config.config_file_name, disable_existing_loggers=False)
    settings = StorageConfig.from_env()
    schema = settings.postgres.schema_name
    if context.is_offline_mode():
        migrate.write_sql(context, schema)
        return
    # `cmd` holds the function that Alembic's command line is about to call.
    called = getattr(config.cmd_opts, "cmd", (None,))[0]
    compare = called is command.check or getattr(config.cmd_opts, "autogenerate", False)
    engine = create_engine(settings)
    try:
        with translated(), any_layout(), engine.connect() as connection:
            migrate.run(context, connection, schema, compare=compare)
    finally:
        engine.dispose()


if "connection" in config.attributes:
    migrate.run(
        context,
        config.attributes["connection"],
        config.attributes["schema"],
        compare=config.attributes.get("compare", False),
    )
else:
    try:
        on_the_command_line()
    except StorageError as error:
        # Alembic prints a CommandError as one line instead of a traceback.
        raise CommandError(str(error)) from error
