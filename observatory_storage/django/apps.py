"""The app, as Django finds it by ``"observatory_storage.django"`` in ``INSTALLED_APPS``."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.core.signals import request_finished, setting_changed
from django.db.models.signals import post_migrate

from observatory_storage.config.application_source import PREFIX

__all__ = ["ObservatoryConfig"]


class ObservatoryConfig(AppConfig):
    """The app ``observatory``."""

    name = "observatory_storage.django"
    label = "observatory"
    verbose_name = "Observatory"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the checks, and follow Django's tests. Nothing is read or opened yet."""
        from observatory_storage.django import app_checks, following_tests

        app_checks.register()
        setting_changed.connect(_forget_settings, dispatch_uid="observatory")
        request_finished.connect(following_tests.flush_in_tests, dispatch_uid="observatory")
        post_migrate.connect(
            following_tests.migrate_test_database, sender=self, dispatch_uid="observatory"
        )


def _forget_settings(*, setting: str, **_: Any) -> None:
    if setting.startswith(PREFIX) or setting in {"DATABASES", "ROOT_URLCONF"}:
        from observatory_storage.django.app_settings import forget_settings
        from observatory_storage.django.models import follow_schema

        forget_settings()
        follow_schema()
