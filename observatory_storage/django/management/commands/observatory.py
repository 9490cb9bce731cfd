"""``manage.py observatory …``: the whole command line, with the settings of the project."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, ClassVar

from django.core.management.base import BaseCommand, CommandError

from observatory_storage.cli.common_options import logging_as_before
from observatory_storage.cli.main import run
from observatory_storage.django.management.project_state import ProjectState

__all__ = ["Command"]


class Command(BaseCommand):
    """Passes all its arguments to the command line."""

    help = "Run a command of observatory-storage: manage.py observatory traces, … costs, …"
    requires_system_checks: ClassVar[list[str]] = []

    def run_from_argv(self, argv: Sequence[str]) -> None:
        """Run the command line, whose options are its own; ends the process."""
        sys.exit(run(argv[2:], ProjectState(), f"{argv[0]} {argv[1]}"))

    def add_arguments(self, parser: Any) -> None:
        """Take any arguments, for ``call_command("observatory", "traces")``."""
        parser.add_argument("arguments", nargs="*")

    def handle(self, *_: Any, **options: Any) -> None:
        """Run the command line.

        Raises:
            CommandError: it failed. Standard error says why.
        """
        with logging_as_before():
            code = run(options["arguments"], ProjectState(), "observatory")
        if code:
            raise CommandError("the command failed", returncode=code)
