"""``python -m observatory_storage.demo`` runs the application, stores and queries its telemetry.

It then compares what was emitted with what is stored. Without ``DATABASE_URL`` it starts an
embedded PostgreSQL. The demo creates its own database, which it drops at the end.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import click
from rich.text import Text

from observatory_storage import PostgresConfig, StorageConfig, StorageError, StoragePool
from observatory_storage.cli.console import new_console
from observatory_storage.cli.formatting import clean
from observatory_storage.config.sources import VariablesSource

__all__ = ["main"]

_INTERRUPTED, _TERMINATED = 130, 143  # as a shell reports SIGINT and SIGTERM
_EXTRAS = "the demo needs more packages: pip install 'observatory-storage[otel,embedded]'"


@click.command()
@click.option("--traces", default=600, show_default=True, type=click.IntRange(1))
@click.option("--seed", default=1, show_default=True, help="Of all that is left to chance.")
def demo(traces: int, seed: int) -> None:
    """Run an instrumented LLM application, store its telemetry, and query it."""
    try:
        from observatory_embedded import temporary_database
        from observatory_storage.demo.demonstration import run
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{_EXTRAS} (there is no {error.name})") from error
    console = new_console()
    with temporary_database(_server(), prefix="observatory_demo") as url:
        config = StorageConfig(postgres=PostgresConfig.from_url(url))
        with StoragePool(config) as pool:
            pool.run_migrations()
            differences = run(pool, console, traces=traces, seed=seed)
    if differences:
        console.print(Text("What is stored is not what was emitted:", style="bold red"))
        for line in differences:
            console.print(Text(f"  {clean(line)}"), soft_wrap=True)
        raise click.exceptions.Exit(1)
    console.print(Text("Every count of what was emitted is that of what is stored.", "bold green"))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the demo and exit: with 1 if emitted and stored counts differ, or if anything failed."""
    # SIGTERM must not leave the database behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(_TERMINATED))
    try:
        code = demo.main(arguments, prog_name="demo", standalone_mode=False)
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        code = _INTERRUPTED
    except StorageError as error:
        new_console(stderr=True).print(Text(f"error: {error}", style="red"), soft_wrap=True)
        code = 1
    sys.exit(code)


def _server() -> str | None:
    """The URL of the server to use, or None for an embedded one."""
    url: str | None = VariablesSource(StorageConfig).variables().get("DATABASE_URL")
    if not url:
        return None
    PostgresConfig.from_url(url)  # raises our error, which does not show the password
    return url


if __name__ == "__main__":
    main()
