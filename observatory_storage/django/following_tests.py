"""What the app does while Django's tests run, so that they have a store and find what they wrote.

The store follows the name of the test's database by itself: see `app_settings.fingerprint`.
"""

from __future__ import annotations

import logging

from observatory_storage.django import app_pool
from observatory_storage.django.app_settings import app_settings, is_testing
from observatory_storage.django.database_alias import is_postgresql, settings_of_alias
from observatory_storage.errors import StorageError

__all__ = ["flush_in_tests", "migrate_test_database"]

logger = logging.getLogger(__name__)


def migrate_test_database(using: str) -> None:
    """After Django has migrated a database of tests, migrate the store in it."""
    if not is_testing() or using != app_settings().database_alias:
        return
    entry = settings_of_alias(using)
    if entry is not None and is_postgresql(entry):
        app_pool.get_pool().run_migrations()


def flush_in_tests() -> None:
    """After a request of a test, commit what it recorded: the test may look for it at once."""
    if is_testing():
        try:
            app_pool.flush_writers()
        except StorageError as error:
            logger.warning("what a request recorded was not written: %s", error)
