"""The base of the management commands: one command of the command line, in Django's manner."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, ClassVar, Final

import click
from django.core.management.base import BaseCommand, CommandError

from observatory_storage.cli.common_options import logging_as_before
from observatory_storage.cli.main import commands
from observatory_storage.django.management.project_state import ProjectState
from observatory_storage.errors import StorageError

__all__ = ["StorageManagementCommand"]

# The levels of the log that are shown, by --verbosity.
_LOG_LEVELS: Final = {2: "info", 3: "debug"}
_INTERRUPTED: Final = 130


class StorageManagementCommand(BaseCommand):
    """Runs a command of the command line with the settings of the project.

    Attributes:
        command: the name of the command.
        failure: the error if the command told by itself what failed.
    """

    command: ClassVar[str]
    failure: ClassVar[str] = "the command failed"
    # They are what somebody runs when checks fail.
    requires_system_checks: ClassVar[list[str]] = []

    def add_arguments(self, parser: Any) -> None:
        """Add ``--json``."""
        parser.add_argument("--json", action="store_true", help="Print JSON for programs.")

    def arguments(self, options: dict[str, Any]) -> list[str]:
        """The arguments of the command, from the options of Django's command."""
        level = _LOG_LEVELS.get(options["verbosity"])
        return [
            *(["--json"] if options["json"] else []),
            *(["--log-level", level] if level else []),
        ]

    def handle(self, *_: Any, **options: Any) -> None:
        """Run the command.

        Raises:
            CommandError: it failed, or an option is not valid.
        """
        arguments = [self.command, *self.arguments(options)]
        output = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
        try:
            with logging_as_before(), redirect_stdout(output), redirect_stderr(self.stderr._out):
                code = commands.main(arguments, standalone_mode=False, obj=ProjectState())
            if code:
                raise CommandError(self.failure, returncode=code)
        except click.Abort:
            raise CommandError("interrupted", returncode=_INTERRUPTED) from None
        except click.ClickException as error:
            raise CommandError(error.format_message(), returncode=error.exit_code) from error
        except StorageError as error:
            raise CommandError(_with_advice(error)) from error
        finally:
            if options["verbosity"] > 0:
                self.stdout.write(output.buffer.getvalue().decode(), ending="")


def _with_advice(error: StorageError) -> str:
    from observatory_storage.cli.advice import advice_for

    return "\n".join(filter(None, (str(error), advice_for(error, ProjectState()))))
