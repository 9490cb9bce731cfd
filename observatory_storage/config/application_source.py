"""The settings that an application of a web framework has for the store, by name."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final

from pydantic import BaseModel
from pydantic_settings import BaseSettings

from observatory_storage.config.fields import Key, Setting, settings_of
from observatory_storage.config.problems import shown_key
from observatory_storage.config.sources import (
    DotEnvSource,
    FileSource,
    Source,
    VariablesSource,
)

__all__ = ["PREFIX", "ApplicationSource", "application_settings", "sources_of_application"]

PREFIX: Final = "OBSERVATORY_"
_URL: Final = "DATABASE_URL"
_READ_URL: Final = "DATABASE_READ_URL"
_SHORT_NAMES: Final[dict[Key, str]] = {("postgres", "schema"): f"{PREFIX}SCHEMA"}


class ApplicationSource(VariablesSource):
    """The settings of an application whose names begin with ``OBSERVATORY_``.

    A value is a text as in a variable of the environment, or a value of Python.

    Args:
        settings_cls: the configuration.
        given: the settings of the application, also those that are not the store's.
        own: further names with the prefix, which the integration of the framework reads itself.
        where: what errors write before a name.
    """

    def __init__(
        self,
        settings_cls: type[BaseSettings],
        given: Mapping[str, Any],
        own: Collection[str] = (),
        *,
        where: str = "",
    ) -> None:
        super().__init__(settings_cls)
        self.where = where
        self._given = given
        self._own = own

    def variables(self) -> Mapping[str, Any]:
        """The settings of the application."""
        return self._given

    def names(self, setting: Setting) -> Sequence[str]:
        """The names of a setting in an application, the main one first."""
        return _names(setting)

    def read(self) -> None:
        """Set every setting that the application has, and refuse names that are none."""
        super().read()
        self.loaded.problems += self._unknown()

    def _unknown(self) -> Iterator[str]:
        known = [*application_settings(self.settings_cls), *self._own]
        for name in sorted(str(name) for name in self._given):
            if name.startswith(PREFIX) and name not in known:
                near = get_close_matches(name, known, n=1, cutoff=0.7)
                advice = f"; did you mean {near[0]}?" if near else ""
                yield f"{self.where}{shown_key(name)}: there is no such setting{advice}"


def application_settings(model: type[BaseModel]) -> dict[str, Key]:
    """The keys of the settings by the names that they have in an application.

    A name is that of the variable, with the prefix once: ``OBSERVATORY_REDIS_URL``,
    ``OBSERVATORY_RETENTION_TRACES``.
    """
    return {name: key for key, setting in settings_of(model).items() for name in _names(setting)}


def sources_of_application(
    settings_cls: type[BaseSettings],
    given: Mapping[str, Any],
    own: Collection[str] = (),
    *,
    where: str = "",
    file: str | os.PathLike[str] | None = None,
    ignored: Collection[str] = (),
) -> list[Source]:
    """The application's settings, the environment, ``.env`` and the file, in this order.

    Variables whose names are `ignored` are not read.
    """
    if given.get(f"{PREFIX}{_URL}"):  # the parts of the URLs of two databases must not be mixed
        ignored = (_URL, _READ_URL, *ignored)
    sources: list[Source] = [
        ApplicationSource(settings_cls, given, own, where=where),
        VariablesSource(settings_cls, ignored),
        DotEnvSource(settings_cls, ignored),
    ]
    if file is not None:
        sources.append(FileSource(settings_cls, file))
    return sources


def _names(setting: Setting) -> tuple[str, ...]:
    names = tuple(f"{PREFIX}{name.removeprefix(PREFIX)}" for name in setting.variables)
    short = _SHORT_NAMES.get(setting.key)
    return (short, *names) if short is not None else names
