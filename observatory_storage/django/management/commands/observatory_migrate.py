"""``manage.py observatory_migrate``."""

from __future__ import annotations

from observatory_storage.django.management.storage_command import StorageManagementCommand

__all__ = ["Command"]


class Command(StorageManagementCommand):
    """Migrates the store."""

    help = (
        "Create the store's tables in OBSERVATORY_SCHEMA, or bring them to the newest revision."
        " Django's own migrations are not touched."
    )
    command = "migrate"
