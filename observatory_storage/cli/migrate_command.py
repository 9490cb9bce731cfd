"""``migrate``: create the tables, or bring them to the newest revision."""

from __future__ import annotations

import click
from rich.text import Text

from observatory_storage import migrate as migrations
from observatory_storage.cli.common_options import (
    State,
    StorageCommand,
    common_options,
    json_option,
)
from observatory_storage.distribution import any_layout

__all__ = ["command"]


@click.command("migrate", cls=StorageCommand)
@json_option
@common_options
@click.pass_obj
def command(state: State) -> None:
    """Create the tables, or bring them to the newest revision.

    The same as `alembic upgrade head`. When several processes run it at once, one migrates and the
    others wait for it.
    """
    output = state.output()
    with state.pool() as pool, any_layout():
        before = migrations.current(pool.engine, pool.schema)
        pool.run_migrations()
        now = migrations.current(pool.engine, pool.schema)
        if output.json:
            output.write({"schema": pool.schema, "before": before, "now": now})
        elif before == now:
            output.show(Text(f"schema {pool.schema} is already at the newest revision, {now}"))
        else:
            output.show(Text(f"schema {pool.schema}: {before or 'no revision'} -> {now}"))
