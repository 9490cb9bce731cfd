"""The ``OBSERVATORY_*`` settings of a Django project, read when they are first needed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Final

from django.conf import settings
from django.utils.module_loading import import_string

from observatory_storage.config import PostgresConfig, StorageConfig
from observatory_storage.config.application_source import PREFIX, ApplicationSource
from observatory_storage.config.own_settings import (
    REQUEST_WRITERS,
    is_unset,
    read_arguments,
    read_flag,
    read_name,
)
from observatory_storage.config.problems import Origin, raise_config_error
from observatory_storage.config.sources import Source
from observatory_storage.django.database_alias import AliasSource, settings_of_alias
from observatory_storage.django.store_names import DEFAULT_ALIAS, DEFAULT_SCHEMA
from observatory_storage.errors import ConfigError, StorageError, shown
from observatory_storage.web import bearer_token
from observatory_storage.writers import WriterConfig

__all__ = [
    "AppSettings",
    "app_settings",
    "fingerprint",
    "forget_settings",
    "is_testing",
    "settings_sources",
    "storage_config",
]

_URL: Final = f"{PREFIX}DATABASE_URL"
_TEST_PREFIX: Final = "test_"

Permission = Callable[[Any], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class AppSettings:
    """The settings that the app itself reads.

    Attributes:
        database_alias: the entry of ``DATABASES`` whose connection parameters the store shares;
            None if ``OBSERVATORY_DATABASE_URL`` is set.
        permission: whether a request may see traces: a function of the request.
        health_permission: whether a request may see metrics, and the details of health checks.
        otlp_permission: whether a request may send OTLP; None if tokens alone decide.
        otlp_tokens: the tokens that senders of OTLP show.
        record_requests: whether the middleware records a span for each request.
        service_name: the service that recorded requests belong to.
        writers: how the app's writers buffer and flush.
    """

    database_alias: str | None = "default"
    permission: Permission
    health_permission: Permission
    otlp_permission: Permission | None = None
    otlp_tokens: tuple[str, ...] = ()
    record_requests: bool = False
    service_name: str = "django"
    writers: WriterConfig


_OWN: Final = tuple(PREFIX + field.name.upper() for field in fields(AppSettings))
_DEFAULT_PERMISSION: Final = "observatory_storage.django.permissions.may_view_traces"

_cache: Final[dict[str, AppSettings]] = {}
_generation: Final = [0]


def forget_settings() -> None:
    """Read the settings anew when they are needed next: a test has overridden one."""
    _generation[0] += 1
    _cache.clear()


def app_settings() -> AppSettings:
    """The settings of the app itself.

    Raises:
        ConfigError: a setting is invalid. It lists all that are.
    """
    found = _cache.get("own")
    if found is None:
        found = _cache["own"] = _read()
    return found


def settings_sources() -> list[Source]:
    """The places that the settings of the store are read from, the first of which counts.

    Neither environment variables nor ``.env`` are read: that is up to the project's settings.

    Raises:
        ConfigError: a setting of the app itself is invalid.
    """
    own = app_settings()
    given = {name: getattr(settings, name) for name in dir(settings) if name.startswith(PREFIX)}
    application = ApplicationSource(StorageConfig, given, _OWN)
    if own.database_alias is None:
        return [application]
    return [application, AliasSource(StorageConfig, own.database_alias, application.loaded)]


def storage_config() -> StorageConfig:
    """The configuration of the store, by the settings and by ``DATABASES``.

    Raises:
        ConfigError: a setting is invalid or unknown, or the database is not PostgreSQL. It lists
            all problems.
    """
    config = StorageConfig._from(*settings_sources(), _DefaultSchema(StorageConfig))
    if app_settings().database_alias is None and is_testing():
        _check_test_database(config.postgres)
    return config


def fingerprint() -> tuple[object, ...]:
    """Differs when the configuration may: settings were overridden, or a test's database begins."""
    alias = app_settings().database_alias
    entry = settings_of_alias(alias) if alias is not None else None
    address = entry and tuple(entry.get(name) for name in ("NAME", "HOST", "PORT", "USER"))
    return (_generation[0], alias, address, is_testing())


def is_testing() -> bool:
    """Whether Django's test environment is set up, by ``manage.py test`` or by pytest-django."""
    # Not imported here, since no other process needs that module.
    utils = sys.modules.get("django.test.utils")
    return utils is not None and hasattr(utils._TestState, "saved_data")


class _DefaultSchema(Source):
    """A schema of its own, since tables such as ``logs`` are common names."""

    def read(self) -> None:
        self.set_value(("postgres", "schema"), DEFAULT_SCHEMA, Origin(f"{PREFIX}SCHEMA"))


def _check_test_database(postgres: PostgresConfig) -> None:
    if not postgres.database.startswith(_TEST_PREFIX):
        raise ConfigError(
            f"{_URL}: tests would write to its database {postgres.database!r}. Let the settings of"
            f" tests name a database that begins with {_TEST_PREFIX}, or add the database to"
            f" DATABASES and set {PREFIX}DATABASE_ALIAS, which tests follow by themselves"
        )


def _read() -> AppSettings:
    """The settings of the app, or one error with the problems of all."""
    problems: list[str] = []

    def value_of(name: str, read: Callable[[Any], Any], *, default: Any) -> Any:
        given = getattr(settings, PREFIX + name, None)
        try:
            return read(default if is_unset(given) else given)
        except (StorageError, ImportError) as error:
            what = f"{PREFIX}{name}"
            if name != "OTLP_TOKENS":  # which are secrets
                what += f" = {shown(given)}"
            problems.append(f"{what}: {error}")
            return None

    has_url = bool(getattr(settings, _URL, None))
    has_alias = getattr(settings, f"{PREFIX}DATABASE_ALIAS", None) is not None
    if has_url and has_alias:
        problems.append(f"{PREFIX}DATABASE_ALIAS: must not be set together with {_URL}")
    read = AppSettings(
        database_alias=None
        if has_url
        else value_of("DATABASE_ALIAS", read_name, default=DEFAULT_ALIAS),
        permission=value_of("PERMISSION", _function, default=_DEFAULT_PERMISSION),
        health_permission=value_of("HEALTH_PERMISSION", _function, default=_DEFAULT_PERMISSION),
        otlp_permission=value_of("OTLP_PERMISSION", _function_or_none, default=""),
        otlp_tokens=value_of("OTLP_TOKENS", _tokens, default=()),
        record_requests=value_of("RECORD_REQUESTS", read_flag, default=False),
        service_name=value_of("SERVICE_NAME", read_name, default=_project_name()),
        writers=value_of("WRITERS", _writers, default={}),
    )
    raise_config_error(problems)
    return read


def _project_name() -> str:
    """The name of the project's package, after which Django names its settings and its URLs."""
    return str(getattr(settings, "ROOT_URLCONF", None) or "django").partition(".")[0]


def _function(value: Any) -> Permission:
    found = import_string(value) if isinstance(value, str) else value
    if not callable(found):
        raise ConfigError("must be a function of the request, or its dotted path")
    permission: Permission = found
    return permission


def _function_or_none(value: Any) -> Permission | None:
    return _function(value) if value else None


def _tokens(value: Any) -> tuple[str, ...]:
    tokens = (value,) if isinstance(value, str) else value
    if not isinstance(tokens, (list, tuple)):
        raise ConfigError("must be a token or a list of tokens")
    if tokens:
        bearer_token(*tokens)  # checks them
    return tuple(tokens)


def _writers(value: Any) -> WriterConfig:
    return read_arguments(WriterConfig, value, REQUEST_WRITERS)
