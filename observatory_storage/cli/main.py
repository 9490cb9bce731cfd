"""The commands together, and what becomes of their errors."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click
from rich.text import Text

from observatory_storage.cli.advice import advice_for
from observatory_storage.cli.check import check
from observatory_storage.cli.indexes import indexes
from observatory_storage.cli.ingest import ingest
from observatory_storage.cli.logs import logs
from observatory_storage.cli.metrics import metrics
from observatory_storage.cli.migrate import migrate
from observatory_storage.cli.output import new_console
from observatory_storage.cli.state import State, common_options
from observatory_storage.cli.text import clean
from observatory_storage.cli.traces import trace, traces
from observatory_storage.errors import ConfigError, NotFound, StorageError, ValidationError

__all__ = ["commands", "main"]

# Their message says all there is to know: what was asked for is not there, or not right.
_PLAIN = (ConfigError, NotFound, ValidationError)
_INTERRUPTED = 130  # as a shell reports SIGINT


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="observatory-storage", message="%(prog)s %(version)s")
@common_options
@click.pass_context
def commands(context: click.Context) -> None:
    """Traces, metrics and logs of LLM applications in PostgreSQL.

    The database is that of DATABASE_URL or DB_HOST, DB_NAME and so on, from the environment, .env
    or the file of --config.
    """
    context.ensure_object(State)


for command in (check, migrate, indexes, ingest, traces, trace, logs, metrics):
    commands.add_command(command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; ends the process.

    The exit code is 0 when all went well, 1 when something did not, 2 for wrong use, and 130
    after Ctrl-C. An error is one line on standard error, with advice below it where there is any.
    """
    state = State()
    try:
        code = commands.main(
            arguments, prog_name="observatory-storage", standalone_mode=False, obj=state
        )
    except click.exceptions.Exit as error:
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        code = _INTERRUPTED
    except StorageError as error:
        _report(str(error), advice_for(error, state), state, plain=isinstance(error, _PLAIN))
        code = 1
    except Exception as error:  # noqa: BLE001 - a mistake in this program is no reason to bury people in it
        _report(f"{type(error).__name__}: {error}", None, state)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)


def _report(message: str, advice: str | None, state: State, *, plain: bool = False) -> None:
    console = new_console(stderr=True)
    if state.debug:
        console.print(Text(traceback.format_exc().rstrip(), style="dim"))
    first, *rest = message.splitlines() or [""]
    line = Text("error: ", style="bold red").append(clean(first), style="")
    console.print(line, soft_wrap=True)
    for each in [*rest, *([advice] if advice else [])]:
        console.print(Text(f"  {clean(each.strip())}"), soft_wrap=True)
    if not (state.debug or advice or plain):
        console.print(Text("  --log-level debug shows where it happened", style="dim"))
