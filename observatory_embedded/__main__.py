"""``python -m observatory_embedded FOLDER`` runs a PostgreSQL server for development."""

from __future__ import annotations

import contextlib
import signal
import sys
from pathlib import Path

import click

from observatory_embedded.postgres import EmbeddedPostgres
from observatory_embedded.process import EmbeddedServerError

__all__ = ["main"]


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Run a PostgreSQL 18 server that keeps its data in FOLDER, until Ctrl-C or SIGTERM.

    When it accepts connections, it prints its URL as a line of a file .env. The URL is another one
    after each start. Only the user who runs the server can connect to it.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with contextlib.suppress(KeyboardInterrupt), EmbeddedPostgres(folder) as server:
            click.echo(f"DATABASE_URL={server.url}")
            click.echo(f"PostgreSQL is ready. Its data are in {folder}; Ctrl-C ends it.", err=True)
            signal.pause()
    except EmbeddedServerError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main(prog_name="python -m observatory_embedded")
