"""``manage.py observatory_maintain``."""

from __future__ import annotations

from typing import Any

from observatory_storage.django.management.storage_command import StorageManagementCommand

__all__ = ["Command"]


class Command(StorageManagementCommand):
    """Maintains the store."""

    help = "Do what the store needs from time to time: run it every minute, for example from cron."
    command = "maintain"
    failure = "maintenance failed"

    def add_arguments(self, parser: Any) -> None:
        """Add ``--for`` too."""
        super().add_arguments(parser)
        parser.add_argument(
            "--for",
            dest="duration",
            metavar="DURATION",
            help="Stop after about this time, such as 60s or 5m. The next run does the rest.",
        )

    def arguments(self, options: dict[str, Any]) -> list[str]:
        """Those of the command, with the bound on its time."""
        bound = ["--for", options["duration"]] if options["duration"] else []
        return [*super().arguments(options), *bound]
