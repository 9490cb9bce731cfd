"""``manage.py observatory_check``."""

from __future__ import annotations

from observatory_storage.django.management.storage_command import StorageManagementCommand

__all__ = ["Command"]


class Command(StorageManagementCommand):
    """Checks the store."""

    help = "Check settings, servers, migrations, permissions and a sample query of the store."
    command = "check"
    failure = "the store is not in order"
