"""The settings of the example. ``DATABASE_URL`` names its database."""

import os
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict

FOLDER = Path(__file__).parent
address = conninfo_to_dict(os.environ["DATABASE_URL"])

SECRET_KEY = os.environ.get("SECRET_KEY", "only for an example")
DEBUG = bool(os.environ.get("DEBUG"))
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]
ROOT_URLCONF = "chat.urls"
WSGI_APPLICATION = "chat.wsgi.application"
STATIC_URL = "static/"
TIME_ZONE = "UTC"

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": address.pop("dbname"),
        "OPTIONS": address,
    }
}

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "observatory_storage.django",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "observatory_storage.django.middleware.ObservatoryMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
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
]

OBSERVATORY_DATABASE_ALIAS = "default"
# As the command line reads it, so that `observatory-storage traces` shows the same store.
OBSERVATORY_SCHEMA = os.environ.get("DB_SCHEMA", "public")
OBSERVATORY_RECORD_REQUESTS = True
OBSERVATORY_SERVICE_NAME = "chat"
OBSERVATORY_OTLP_TOKENS = os.environ.get("OTLP_TOKEN")
