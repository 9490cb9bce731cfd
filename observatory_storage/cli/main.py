"""The commands together, and the exit codes of their errors.

A command's module is imported when the command runs: importing SQLAlchemy and the rest takes a
second, which ``--version`` and ``--help`` do not need.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final, NoReturn

import click

from observatory_storage.cli.common_options import State, common_options

__all__ = ["COMMANDS", "commands", "main", "run"]

# Each command is `command` in the module of its name with `_command`.
COMMANDS: Final = {
    "check": "Check configuration, servers, migrations and permissions.",
    "migrate": "Create the tables, or bring them to the newest revision.",
    "maintain": "Do what the store needs from time to time.",
    "indexes": "Build the search indexes of days that are over.",
    "retention": "Delete rows that are older than they are kept.",
    "size": "Show the size of tables, partitions, indexes and columns.",
    "dashboards": "List the dashboards for Grafana, or write them to files.",
    "serve": "Receive OTLP over HTTP.",
    "facts": "Read the LLM columns of stored spans again.",
    "settle": "Count usage once that several traces report.",
    "prices": "Load prices of models, and compute costs with them.",
    "rollups": "Bring rollups up to date, or compute them again.",
    "payloads": "Move large values into frames or back, and check the frames.",
    "ingest": "Store OTLP from files or standard input.",
    "export": "Print traces, metrics or logs as OTLP.",
    "traces": "List traces.",
    "trace": "Show one trace as a waterfall.",
    "sessions": "List sessions (conversations).",
    "services": "List services, or the operations of one.",
    "costs": "Show tokens and cost of model calls.",
    "logs": "List log records, or follow them.",
    "tail": "Print logs, spans or traces as they are stored.",
    "metrics": "List metrics, or show one over time.",
}
_INTERRUPTED: Final = 130  # as a shell reports SIGINT


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"observatory_storage.cli.{cmd_name}_command")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="observatory-storage", message="%(prog)s %(version)s")
@common_options
@click.pass_context
def commands(context: click.Context) -> None:
    """Traces, metrics and logs of LLM applications in PostgreSQL.

    DATABASE_URL names the database, or DB_HOST, DB_NAME and so on do. Settings are read from the
    environment, .env, and the file given with --config.
    """
    context.ensure_object(State)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; ends the process.

    The exit code is 0 for success, 1 for an error, 2 for wrong usage, and 130 after Ctrl-C. It is
    0 too when the reader of the output leaves, as ``head`` does. An error is one line on standard
    error, with advice below it where there is any.
    """
    code = run(arguments, State(), "observatory-storage")
    # At its end, the interpreter would search all that was imported for garbage, for tenths of a
    # second.
    gc.freeze()
    sys.exit(code)


def run(arguments: Sequence[str] | None, state: State, program: str) -> int:
    """Run the command line in this process; returns its exit code, see `main`.

    Args:
        arguments: the arguments; None for those of the process.
        state: knows the configuration.
        program: the name of the program, as help and errors of usage show it.
    """
    try:
        result = commands.main(arguments, prog_name=program, standalone_mode=False, obj=state)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return _INTERRUPTED
    except SystemExit:
        return 0  # click exits only if the reader of its help has closed the pipe
    except Exception as error:  # noqa: BLE001 - nobody should have to read a traceback unasked
        return _code_of(error, state)


def _code_of(error: Exception, state: State) -> int:
    from observatory_storage.cli.console import ReaderLeft
    from observatory_storage.cli.error_report import report

    if isinstance(error, ReaderLeft):
        # Python flushes standard output at exit, and would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    report(error, state)
    return 1
