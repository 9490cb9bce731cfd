"""The settings of the Django project of these tests, which hold for their whole process."""

from __future__ import annotations

from typing import Any

import django
from django.conf import settings

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "observatory_storage.django.middleware.ObservatoryMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
SETTINGS: dict[str, Any] = {
    "SECRET_KEY": "secret",
    "ALLOWED_HOSTS": ["*"],
    "ROOT_URLCONF": "tests.django_app.project",
    "DATABASES": {
        "default": {"ENGINE": "django.db.backends.postgresql", "NAME": "set by the fixture"},
        "other": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
    },
    "INSTALLED_APPS": [
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
        "observatory_storage.django",
    ],
    "MIDDLEWARE": MIDDLEWARE,
    "TEMPLATES": [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
    "SESSION_ENGINE": "django.contrib.sessions.backends.signed_cookies",
    "PASSWORD_HASHERS": ["django.contrib.auth.hashers.MD5PasswordHasher"],
    "STATIC_URL": "static/",
    "USE_TZ": True,
    "TIME_ZONE": "UTC",
    "LOGGING_CONFIG": None,
    "OBSERVATORY_SCHEMA": "public",
    "OBSERVATORY_DB_RETRY_MAX_ATTEMPTS": 1,
}


def set_up() -> None:
    """Set the project up, once in this process."""
    if not settings.configured:
        settings.configure(**SETTINGS)
        django.setup()
