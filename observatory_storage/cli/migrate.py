"""``migrate``: bring the tables to the newest revision."""

from __future__ import annotations

import click
from rich.text import Text

from observatory_storage import migrate as migrations
from observatory_storage.cli.state import State, common_options, json_option

__all__ = ["migrate"]


@click.command()
@json_option
@common_options
@click.pass_obj
def migrate(state: State) -> None:
    """Make the tables, or bring them to the newest revision.

    The same as `alembic upgrade head`. Processes that do it at once do it once.
    """
    state.start_logging()
    output = state.output()
    with state.pool() as pool:
        before = migrations.current(pool.engine, pool.schema)
        pool.run_migrations()
        now = migrations.current(pool.engine, pool.schema)
        if output.json:
            output.write({"schema": pool.schema, "before": before, "now": now})
        elif before == now:
            output.show(Text(f"schema {pool.schema} is at {now} already, the newest"))
        else:
            output.show(Text(f"schema {pool.schema}: {before or 'nothing'} -> {now}"))
