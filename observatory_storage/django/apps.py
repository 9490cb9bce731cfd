"""The app, as Django finds it by ``"observatory_storage.django"`` in ``INSTALLED_APPS``."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.core.signals import request_finished, setting_changed
from django.db.models.signals import post_migrate

__all__ = ["ObservatoryConfig"]


class ObservatoryConfig(AppConfig):
    """The app ``observatory``."""

    name = "observatory_storage.django"
    label = "observatory"
    verbose_name = "Observatory"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks, and follow Django's tests. Nothing is read or opened yet."""
        from observatory_storage.django import app_checks

        app_checks.register()
        setting_changed.connect(_forget_settings, dispatch_uid="observatory")
        request_finished.connect(_flush_in_tests, dispatch_uid="observatory")
        post_migrate.connect(_migrate_in_tests, sender=self, dispatch_uid="observatory")


# What these import needs SQLAlchemy, for which most commands of a project should not wait.


def _flush_in_tests(**_: Any) -> None:
    from observatory_storage.django.following_tests import flush_in_tests

    flush_in_tests()


def _migrate_in_tests(*, using: str, **_: Any) -> None:
    from observatory_storage.django.following_tests import migrate_test_database

    migrate_test_database(using)


def _forget_settings(*, setting: str, **_: Any) -> None:
    if setting.startswith("OBSERVATORY_") or setting in {"DATABASES", "ROOT_URLCONF"}:
        from observatory_storage.django.app_settings import forget_settings
        from observatory_storage.django.models import follow_schema

        forget_settings()
        follow_schema()
