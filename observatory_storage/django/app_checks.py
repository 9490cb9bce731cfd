"""System checks: what is missing, as ``manage.py check`` tells it.

Those that ask PostgreSQL run with ``manage.py check --database <alias>``, and before
``manage.py migrate``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.core import checks

if TYPE_CHECKING:
    from observatory_storage.errors import ConfigError

__all__ = [
    "MIDDLEWARE",
    "check_admin",
    "check_middleware",
    "check_settings",
    "check_store",
    "register",
]

MIDDLEWARE: Final = "observatory_storage.django.middleware.ObservatoryMiddleware"
# They answer some requests themselves, or wrap them: what stands below does not see these.
_BELOW: Final = (
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
)


def register() -> None:
    """Register the checks of the app."""
    checks.register(check_settings, "observatory")
    checks.register(check_middleware, "observatory")
    checks.register(check_admin, checks.Tags.admin)
    checks.register(check_store, checks.Tags.database)


def check_settings(**_: Any) -> list[checks.CheckMessage]:
    """The settings are valid, their database is PostgreSQL, and what they need is installed."""
    from observatory_storage.django.app_settings import app_settings, is_testing, storage_config
    from observatory_storage.django.database_alias import is_postgresql, settings_of_alias
    from observatory_storage.errors import ConfigError
    from observatory_storage.payloads import zstd_module

    try:
        own = app_settings()
        if is_testing() and own.database_alias is not None:
            entry = settings_of_alias(own.database_alias)
            if entry is not None and not is_postgresql(entry):
                return []  # tests on another database record nothing
        config = storage_config()
    except ConfigError as error:
        return [checks.Error(problem, id="observatory.E001") for problem in _lines(error)]
    found: list[checks.CheckMessage] = []
    if config.payloads.mode == "compressed":
        try:
            zstd_module()
        except ConfigError as error:
            found.append(
                checks.Error(f"OBSERVATORY_PAYLOADS = 'compressed': {error}", id="observatory.E002")
            )
    if (own.otlp_tokens or own.otlp_permission) and find_spec("google.protobuf") is None:
        found.append(
            checks.Warning(
                "OTLP is received as JSON only, because protobuf is not installed.",
                hint="Most exporters send protobuf: pip install 'observatory-storage[otel]'",
                id="observatory.W003",
            )
        )
    return found


def check_middleware(**_: Any) -> list[checks.CheckMessage]:
    """The middleware stands once, above those that answer requests themselves."""
    names = list(settings.MIDDLEWARE)
    recording = getattr(settings, "OBSERVATORY_RECORD_REQUESTS", False)
    if MIDDLEWARE not in names:
        if not recording:
            return []
        return [
            checks.Warning(
                "OBSERVATORY_RECORD_REQUESTS is True, and no requests are recorded without the"
                " middleware.",
                hint=f"Add {MIDDLEWARE!r} to MIDDLEWARE, below SecurityMiddleware.",
                id="observatory.W001",
            )
        ]
    if names.count(MIDDLEWARE) > 1:
        return [
            checks.Error(
                f"{MIDDLEWARE} is in MIDDLEWARE {names.count(MIDDLEWARE)} times.",
                hint="Each request would have several spans: leave one.",
                id="observatory.E003",
            )
        ]
    above = [name for name in names[: names.index(MIDDLEWARE)] if name in _BELOW]
    if not above:
        return []
    return [
        checks.Warning(
            f"{MIDDLEWARE} stands below {', '.join(above)}.",
            hint="Requests that these answer themselves, such as redirects, have no span, and"
            " their time is not counted: move it above them, below SecurityMiddleware.",
            id="observatory.W002",
        )
    ]


def check_admin(**_: Any) -> list[checks.CheckMessage]:
    """The admin can read the store."""
    from observatory_storage.django.app_settings import app_settings
    from observatory_storage.errors import ConfigError

    if "django.contrib.admin" not in settings.INSTALLED_APPS:
        return []
    try:
        alias = app_settings().database_alias
    except ConfigError:
        return []  # `check_settings` tells it
    if alias is not None:
        return []
    return [
        checks.Warning(
            "The admin shows no traces, because it reads by way of DATABASES, and the store is in"
            " the database of OBSERVATORY_DATABASE_URL.",
            hint="Add this database to DATABASES, and set OBSERVATORY_DATABASE_ALIAS to its name"
            " instead.",
            id="observatory.W004",
        )
    ]


def check_store(
    databases: Collection[str] | None = None, **_: Any
) -> Iterable[checks.CheckMessage]:
    """The store can be reached and is at the newest revision."""
    from observatory_storage import migrate
    from observatory_storage.django.app_pool import get_pool
    from observatory_storage.django.app_settings import app_settings, is_testing
    from observatory_storage.engine import single_attempt
    from observatory_storage.errors import ConfigError, StorageError

    if is_testing():
        return []  # the store of tests is migrated together with their database

    try:
        alias = app_settings().database_alias
        if not databases or (alias is not None and alias not in databases):
            return []
        pool = get_pool()
    except ConfigError:
        return []  # `check_settings` tells it
    try:
        with single_attempt():
            waiting = migrate.pending(pool.engine, pool.schema)
    except StorageError as error:
        return [
            checks.Error(
                f"The store cannot be used: {error}",
                hint="manage.py observatory_check tells more.",
                id="observatory.E004",
            )
        ]
    if not waiting:
        return []
    return [
        # No error, since it would keep `manage.py migrate` from making the database.
        checks.Warning(
            f"The store is not migrated: {len(waiting)} migrations of schema {pool.schema!r} are"
            " not applied.",
            hint="Run: manage.py observatory_migrate",
            id="observatory.W005",
        )
    ]


def _lines(error: ConfigError) -> list[str]:
    """The problems of a configuration, one by one."""
    first, *rest = str(error).splitlines()
    return [line.strip() for line in rest] or [first]
