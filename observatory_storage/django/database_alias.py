"""An alias of ``DATABASES`` as the address of the store.

Django's connections are not SQLAlchemy's, so the store opens connections of its own, with the same
parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from django.db import connections
from django.db.backends.base.creation import TEST_DATABASE_PREFIX
from django.db.utils import load_backend
from psycopg import pq
from pydantic_settings import BaseSettings

from observatory_storage.config.fields import Key
from observatory_storage.config.problems import Loaded, Origin
from observatory_storage.config.sources import Source
from observatory_storage.config.urls import FIELD_OF_PARAMETER, libpq_parameters

__all__ = ["AliasSource", "is_postgresql", "is_test_database", "settings_of_alias"]

# What these options say concerns Django's connections alone.
_OF_DJANGO: Final = frozenset(
    (
        *("pool", "isolation_level", "server_side_binding", "cursor_factory", "row_factory"),
        *("prepare_threshold", "context", "autocommit", "client_encoding"),
    )
)
_PARTS: Final[dict[str, Key]] = {
    "HOST": ("postgres", "host"),
    "PORT": ("postgres", "port"),
    "NAME": ("postgres", "database"),
    "USER": ("postgres", "username"),
    "PASSWORD": ("postgres", "password"),
}
# What the entry tells, and no setting besides.
_ADDRESS: Final = frozenset(
    key
    for key in (*FIELD_OF_PARAMETER.values(), ("postgres", "password_file"))
    if key[0] == "postgres" and key[1] not in ("schema", "application_name")
)
# Where servers put their sockets, which libpq uses when there is no host.
_SOCKET_FOLDERS: Final = ("/var/run/postgresql", "/tmp")  # noqa: S108 - PostgreSQL's own default


def settings_of_alias(alias: str) -> Mapping[str, Any] | None:
    """The entry of ``DATABASES`` as Django completes it; None if there is none.

    While tests run, its name is that of the test's database.
    """
    entry: Mapping[str, Any] | None = connections.settings.get(alias)
    return entry


def is_postgresql(entry: Mapping[str, Any]) -> bool:
    """Whether the engine is PostgreSQL's or derives from it, such as PostGIS's."""
    return bool(load_backend(entry["ENGINE"]).DatabaseWrapper.vendor == "postgresql")


def is_test_database(entry: Mapping[str, Any]) -> bool:
    """Whether the name is that of a test's database, or of the copy of a parallel process."""
    return str(entry["NAME"]).startswith(entry["TEST"]["NAME"] or TEST_DATABASE_PREFIX)


class AliasSource(Source):
    """The connection parameters of an entry of ``DATABASES``.

    Args:
        settings_cls: the configuration.
        alias: the name of the entry.
        application: what the settings of the project have set, which must not contradict it.
    """

    def __init__(self, settings_cls: type[BaseSettings], alias: str, application: Loaded) -> None:
        super().__init__(settings_cls)
        self._alias = alias
        self._application = application
        self._where = f"DATABASES[{alias!r}]"

    def read(self) -> None:
        """Set every parameter that the entry has; what it leaves to libpq is as libpq has it."""
        entry = settings_of_alias(self._alias)
        if entry is None:
            self._report("there is no such database: set OBSERVATORY_DATABASE_ALIAS to one of them")
            return
        if not is_postgresql(entry):
            self._report(
                f"its ENGINE is {entry['ENGINE']}, and the store needs PostgreSQL: set"
                " OBSERVATORY_DATABASE_ALIAS to a database of PostgreSQL, or set"
                " OBSERVATORY_DATABASE_URL"
            )
            return
        for key, origin in self._application.origins.items():
            if key in _ADDRESS:
                told = f"since {self._where} tells it"
                self.loaded.problems.append(f"{origin.name}: must not be set, {told}")
        options = entry.get("OPTIONS") or {}
        given = {name: value for name in _PARTS if (value := entry.get(name)) not in (None, "")}
        # In the order of Django: what the entry has itself takes precedence over its OPTIONS.
        for name, value in _left_to_libpq(given, options).items():
            self._set_part(name, value)
        self._read_options(options)
        for name, value in given.items():
            self._set_part(name, value)

    def _set_part(self, name: str, value: Any) -> None:
        # Only the port is shown in errors, as for the parts of a URL.
        self.set_value(_PARTS[name], value, Origin(f"{self._where}[{name!r}]", name == "PORT"))

    def _read_options(self, options: Mapping[str, Any]) -> None:
        known = libpq_parameters()
        startup = str(options.get("options") or "")
        for name, value in options.items():
            origin = Origin(f"{self._where}['OPTIONS'][{name!r}]")
            if name == "service":
                self._report(
                    "OPTIONS has 'service', whose file this package does not read: set HOST, NAME"
                    " and USER"
                )
            elif name == "assume_role":
                # Django sets it after it has connected. As a parameter it holds from the beginning.
                startup = f"{startup} -c role={_escaped(str(value))}".strip()
            elif name in FIELD_OF_PARAMETER:
                self.set_value(FIELD_OF_PARAMETER[name], value, origin)
            elif name in known and name != "options":
                self.set_value(("postgres", "parameters", name), value, origin)
            elif name not in (*_OF_DJANGO, "options"):
                self._report(f"OPTIONS has {name!r}, which libpq does not know")
        if startup:
            origin = Origin(f"{self._where}['OPTIONS']")
            self.set_value(("postgres", "parameters", "options"), startup, origin)

    def _report(self, problem: str) -> None:
        self.loaded.problems.append(f"{self._where}: {problem}")


def _left_to_libpq(given: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """What libpq takes for parts that are not given: variables such as PGHOST, and its defaults."""
    defaults = {
        option.keyword.decode(): option.val.decode()
        for option in pq.Conninfo.get_defaults()
        if option.val
    }
    port = str(given.get("PORT") or options.get("port") or defaults.get("port", 5432))
    found = {"HOST": defaults.get("host") or _socket_folder(port) or "localhost", "PORT": port}
    if "user" in defaults:
        found["USER"] = defaults["user"]
    return found


def _socket_folder(port: str) -> str | None:
    folders = (folder for folder in _SOCKET_FOLDERS if (Path(folder) / f".s.PGSQL.{port}").exists())
    return next(folders, None)


def _escaped(role: str) -> str:
    """The name as it stands in libpq's ``options``, which blanks separate."""
    return role.replace("\\", "\\\\").replace(" ", "\\ ")
