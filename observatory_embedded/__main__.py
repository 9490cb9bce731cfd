"""``python -m observatory_embedded FOLDER`` runs a PostgreSQL server for development."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

import click

from observatory_embedded.postgres import EmbeddedPostgres
from observatory_embedded.process import EmbeddedServerError

__all__ = ["main"]


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--env-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Set DATABASE_URL in this file, rather than print the line. Other lines stay.",
)
def main(folder: Path, env_file: Path | None) -> None:
    """Run a PostgreSQL 18 server that keeps its data in FOLDER, until Ctrl-C or SIGTERM.

    When it accepts connections, it prints its URL as a line of a file .env, or sets it in the file
    of --env-file. The URL is another one after each start. Only the user who runs the server can
    connect to it.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with contextlib.suppress(KeyboardInterrupt), EmbeddedPostgres(folder) as server:
            line = f"DATABASE_URL={server.url}"
            if env_file is None:
                click.echo(line)
            else:
                set_line(env_file, line)
            click.echo(f"PostgreSQL is ready. Its data are in {folder}; Ctrl-C ends it.", err=True)
            signal.pause()
    except EmbeddedServerError as error:
        raise click.ClickException(str(error)) from error


def set_line(file: Path, line: str) -> None:
    """Replace the lines of this variable in the file by this one. Other lines stay.

    Raises:
        click.ClickException: the file cannot be read or written.
    """
    name = f"{line.partition('=')[0]}="
    try:
        file = file.resolve()  # a link stays one
        former = file.read_text("utf-8").splitlines() if file.exists() else []
        kept = [each for each in former if not each.removeprefix("export ").startswith(name)]
        # Whole or not at all: programs may read the file now, and it may be full of other settings.
        draft = file.with_name(f"{file.name}.{os.getpid()}")
        draft.touch(file.stat().st_mode & 0o777 if file.exists() else 0o600)
        draft.write_text("\n".join([*kept, line, ""]), "utf-8")
        draft.replace(file)
    except (OSError, UnicodeError) as error:
        raise click.ClickException(f"{file} cannot be written: {error}") from error


if __name__ == "__main__":
    main(prog_name="python -m observatory_embedded")
