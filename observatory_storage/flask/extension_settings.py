"""The ``OBSERVATORY_*`` settings of ``app.config``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any, Final, TypeAlias

import sqlalchemy as sa

from observatory_storage.config import StorageConfig
from observatory_storage.config.application_source import PREFIX, sources_of_application
from observatory_storage.config.fields import settings_of
from observatory_storage.config.own_settings import (
    REQUEST_WRITERS,
    is_unset,
    read_arguments,
    read_flag,
    read_name,
)
from observatory_storage.config.problems import Loaded, Origin, raise_config_error
from observatory_storage.config.sources import Source
from observatory_storage.config.urls import FIELD_OF_PARAMETER, parse_database_url
from observatory_storage.errors import ConfigError, StorageError, shown
from observatory_storage.writers import WriterConfig

__all__ = [
    "EngineSource",
    "ExtensionSettings",
    "extension_settings",
    "settings_sources",
    "storage_config",
]

EngineSource: TypeAlias = sa.Engine | Callable[[], sa.Engine] | None

_WHERE: Final = "app.config: "
# The settings of PostgreSQL that an engine of the application has by itself.
_OF_ENGINE: Final = frozenset(
    key
    for key in (
        *FIELD_OF_PARAMETER.values(),
        ("postgres", "password_file"),
        ("postgres", "read_url"),
    )
    if key[0] == "postgres" and key != ("postgres", "schema")
)
_VARIABLES_OF_ENGINE: Final = frozenset(
    name
    for key, setting in settings_of(StorageConfig).items()
    if key in _OF_ENGINE or key == ("postgres",)
    for name in setting.variables
)


def _writers(given: Any) -> WriterConfig:
    return read_arguments(WriterConfig, given, REQUEST_WRITERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionSettings:
    """The settings that the extension itself reads: those of the store are in `StorageConfig`.

    Attributes:
        config_file: a file of settings, which all other settings override.
        record_requests: whether a span is written for each request.
        service_name: the service of these spans, and of calls and steps outside of requests; None
            for the name of the application.
        writers: how the writers of the extension buffer and flush.
    """

    config_file: str | None = None
    record_requests: bool = False
    service_name: str | None = None
    writers: WriterConfig = field(default_factory=lambda: _writers({}))


_OWN: Final = tuple(PREFIX + field.name.upper() for field in fields(ExtensionSettings))


def extension_settings(config: Mapping[str, Any]) -> ExtensionSettings:
    """The settings of the extension itself.

    Raises:
        ConfigError: a setting is invalid. It lists all that are.
    """
    problems: list[str] = []
    found: dict[str, Any] = {}
    for name, read in _READERS.items():
        given = config.get(f"{PREFIX}{name.upper()}")
        try:
            if not is_unset(given):
                found[name] = read(given)
        except StorageError as error:
            problems.append(f"{_WHERE}{PREFIX}{name.upper()} = {shown(given)}: {error}")
    raise_config_error(problems)
    return ExtensionSettings(**found)


def settings_sources(
    config: Mapping[str, Any], engine: EngineSource = None, file: Any = None
) -> list[Source]:
    """The places that the settings of the store are read from, the first of which counts.

    Args:
        config: the ``app.config``.
        engine: the application's own engine, or the function that returns it; None if the store
            has connections of its own.
        file: a file of settings, instead of that of ``app.config``.
    """
    application, *others = sources_of_application(
        StorageConfig,
        config,
        _OWN,
        where=_WHERE,
        file=file or extension_settings(config).config_file,
        ignored=() if engine is None else _VARIABLES_OF_ENGINE,
    )
    if engine is None:
        return [application, *others]
    return [application, _EngineSettings(engine, application.loaded), *others]


def storage_config(
    config: Mapping[str, Any], engine: EngineSource = None, file: Any = None
) -> StorageConfig:
    """The configuration of the store; see `settings_sources`.

    Raises:
        ConfigError: a setting is invalid or unknown, or tells of connections although there is an
            engine. It lists all problems.
    """
    return StorageConfig._from(*settings_sources(config, engine, file))


class _EngineSettings(Source):
    """The connection of the application's own engine, for people to see. The pool uses the engine.

    A function that returns the engine is not called, since it may need an application context.
    """

    def __init__(self, engine: EngineSource, application: Loaded) -> None:
        super().__init__(StorageConfig)
        self._engine = engine
        self._application = application

    def read(self) -> None:
        """Set what the URL of the engine tells, and refuse the same of the application."""
        for key, origin in self._application.origins.items():
            if key in _OF_ENGINE or key[:2] == ("postgres", "parameters"):
                name = origin.name.partition(" (")[0]
                self.loaded.problems.append(f"{name}: must not be set, since `engine` is given")
        if isinstance(self._engine, sa.Engine):
            url = self._engine.url.set(drivername="postgresql")
            with suppress(ValueError):  # the engine may connect by a function of its own
                self._set(parse_database_url(url.render_as_string(hide_password=False)))

    def _set(self, parameters: Mapping[str, Any]) -> None:
        for parameter, value in parameters.items():
            key = FIELD_OF_PARAMETER.get(parameter, ("postgres", "parameters", parameter))
            self.set_value(key, value, Origin("engine", shown=False))


def _path(given: Any) -> str:
    if not hasattr(given, "__fspath__") and not isinstance(given, str):
        raise ConfigError("must be the path of a file")
    return str(given)


_READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "config_file": _path,
    "record_requests": read_flag,
    "service_name": read_name,
    "writers": _writers,
}
