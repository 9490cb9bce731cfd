"""The settings of a web framework as a source: ``OBSERVATORY_`` and the name of the variable."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any, Final

from pydantic import BaseModel
from pydantic_settings import BaseSettings

from observatory_storage.config.fields import Key, settings_of
from observatory_storage.config.problems import NOT_TEXT, Origin
from observatory_storage.config.sources import VariablesSource

__all__ = ["PREFIX", "ApplicationSource", "application_settings"]

PREFIX: Final = "OBSERVATORY_"
# The one setting that every framework's users give, by a name without DB_.
_NAMES: Final[dict[Key, str]] = {("postgres", "schema"): f"{PREFIX}SCHEMA"}


def application_settings(model: type[BaseModel]) -> dict[str, Key]:
    """The settings by the names that a framework knows them by.

    A name is the main environment variable, which ``OBSERVATORY_`` precedes if it does not begin
    so: ``OBSERVATORY_REDIS_URL``, ``OBSERVATORY_RETENTION_TRACES``. The parts of the connection to
    PostgreSQL have none, since ``OBSERVATORY_DATABASE_URL`` or the framework's own settings tell
    them.
    """
    named = {}
    for key, setting in settings_of(model).items():
        if not setting.variables or (key[0] == "postgres" and setting.variables[0] in _ADDRESS):
            continue
        name = _NAMES.get(key, PREFIX + setting.variables[0].removeprefix(PREFIX))
        named[name] = key
    return named


_ADDRESS: Final = frozenset(
    (
        *("DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_PASSWORD", "DB_PASSWORD_FILE"),
        *("DB_SSL_MODE", "DB_SSL_ROOT_CERT", "DB_SSL_CERT", "DB_SSL_KEY"),
    )
)


class ApplicationSource(VariablesSource):
    """The settings of a web framework.

    Args:
        settings_cls: the class of the configuration.
        given: all settings of the framework; those whose names do not begin with ``OBSERVATORY_``
            are ignored.
        own: further names that begin so, which the integration of the framework reads itself.
    """

    def __init__(
        self,
        settings_cls: type[BaseSettings],
        given: Mapping[str, Any],
        own: Collection[str] = (),
    ) -> None:
        super().__init__(settings_cls)
        self._given = {name: given[name] for name in given if name.startswith(PREFIX)}
        self._own = own

    def read(self) -> None:
        """Set every setting that is given, and report names that are not known."""
        known = application_settings(self.settings_cls)
        # The URL last, since it takes precedence over single settings, as in the environment.
        for name in sorted(self._given, key=(f"{PREFIX}DATABASE_URL").__eq__):
            value = self._given[name]
            if name in self._own or value is None or value == "":
                continue
            key = known.get(name)
            if key is None:
                self._report_unknown(name, (*known, *self._own))
            elif key != ("postgres",):
                self.set_value(key, value, Origin(name))
            elif isinstance(value, str):
                self._set_url(name, value)
            else:
                self.loaded.problems.append(f"{name} (its value is not shown): {NOT_TEXT}")

    def _report_unknown(self, name: str, known: Collection[str]) -> None:
        near = get_close_matches(name, known, n=1, cutoff=0.7)
        advice = f"; did you mean {near[0]}?" if near else ""
        self.loaded.problems.append(f"{name}: there is no such setting{advice}")
