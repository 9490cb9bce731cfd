"""Settings sources: environment variables, a `.env` file, a configuration file.

They are settings sources of pydantic-settings. They also record the origin of each value for error
messages, and collect all problems instead of stopping at the first. Secrets leave them as
`SecretStr`, so no later code can log one by accident.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource

from observatory_storage.config.fields import Key, Setting, section_of, settings_of
from observatory_storage.config.parsers import PARSERS
from observatory_storage.config.problems import NOT_TEXT, Loaded, Origin, unknown_key
from observatory_storage.config.unreadable import UnreadableError
from observatory_storage.config.urls import FIELD_OF_PARAMETER, IDENTITY, parse_database_url
from observatory_storage.errors import shown

_DATABASE_URL_KEY: Key = ("postgres",)


class Source(PydanticBaseSettingsSource):
    """A settings source that records the origin of each value."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        super().__init__(settings_cls)
        self.loaded = Loaded()
        self._values: dict[str, Any] = {}

    @abstractmethod
    def read(self) -> None:
        """Set every value that the source has."""

    def set_value(self, key: Key, value: Any, origin: Origin) -> None:
        """Set the value of a key. A secret is wrapped in SecretStr."""
        setting = settings_of(self.settings_cls).get(key)
        if setting is not None and setting.secret:
            if not (isinstance(value, (str, SecretStr, Mapping, NoneType)) or callable(value)):
                # The value is dropped even though it is invalid: it may be an unquoted password.
                self.loaded.problems.append(f"{origin.name} (its value is not shown): {NOT_TEXT}")
                return
            value = _hidden(value)
        group = self._values
        for part in key[:-1]:
            group = group.setdefault(part, {})
        group[key[-1]] = value
        self.loaded.origins[key] = origin

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The value of a section as a mapping; see `PydanticBaseSettingsSource`."""
        key = field.alias or field_name
        return self._values.get(key), key, False

    def __call__(self) -> dict[str, Any]:
        """The values of all sections; see `PydanticBaseSettingsSource`."""
        self.read()
        values = {}
        for name, field in self.settings_cls.model_fields.items():
            value, key, _ = self.get_field_value(field, name)
            if value is not None:
                values[key] = value
        return values


class VariablesSource(Source):
    """The variables of the environment. A subclass reads them from elsewhere.

    Args:
        settings_cls: the configuration.
        ignored: names of variables that are not read.
    """

    where = ""

    def __init__(self, settings_cls: type[BaseSettings], ignored: Collection[str] = ()) -> None:
        super().__init__(settings_cls)
        self._ignored = ignored

    def variables(self) -> Mapping[str, Any]:
        """All variables, also those that are not settings."""
        return os.environ

    def names(self, setting: Setting) -> Sequence[str]:
        """The names of a setting's variables, the main one first."""
        return setting.variables

    def read(self) -> None:
        """Set every setting that has a variable."""
        variables = self.variables()
        urls = []
        for setting in settings_of(self.settings_cls).values():
            given = [
                (name, value)
                for name in self.names(setting)
                if name not in self._ignored
                and (value := _cleaned(variables.get(name), setting)) is not None
            ]
            if any(value != given[0][1] for _, value in given):
                self._report_difference(given)
            elif given and setting.key == _DATABASE_URL_KEY:
                urls.append(given[0])
            elif given:
                name, value = given[0]
                self.set_value(setting.key, value, Origin(self.where + name))
        # Last, since a URL takes precedence over single variables.
        for name, url in urls:
            self._set_url(self.where + name, url)

    def _set_url(self, name: str, url: Any) -> None:
        if isinstance(url, SecretStr):
            url = url.get_secret_value()
        if not isinstance(url, str):
            self.loaded.problems.append(f"{name} (its value is not shown): {NOT_TEXT}")
            return
        try:
            parameters = parse_database_url(url)
        except ValueError as error:
            self.loaded.problems.append(f"{name} (its value is not shown): {error}")
            return
        for parameter, value in parameters.items():
            key = FIELD_OF_PARAMETER.get(parameter, ("postgres", "parameters", parameter))
            self.set_value(key, value, Origin(f"{name} ({parameter})", parameter not in IDENTITY))

    def _report_difference(self, given: list[tuple[str, Any]]) -> None:
        both = " and ".join(f"{self.where}{name} = {shown(value)}" for name, value in given)
        self.loaded.problems.append(f"{both}: two names of one setting must not differ; set one")


class DotEnvSource(VariablesSource):
    """The variables in `.env` of the current directory."""

    where = ".env: "

    def variables(self) -> Mapping[str, Any]:
        """All variables of the file, or none if there is no file."""
        path = Path(".env")
        try:
            if not path.exists() or path.is_dir():  # a folder .env may be a virtual environment
                return {}
            return DotEnvSettingsSource(self.settings_cls, env_file=path).env_vars
        except OSError as error:
            self.loaded.problems.append(f".env: cannot be read: {error.strerror}")
        except UnicodeDecodeError:
            self.loaded.problems.append(".env: must be UTF-8 text")
        return {}


class FileSource(Source):
    """A YAML, TOML or JSON file. Its groups of keys are the sections of the configuration."""

    def __init__(self, settings_cls: type[BaseSettings], path: str | os.PathLike[str]) -> None:
        super().__init__(settings_cls)
        self.path = Path(path)

    def read(self) -> None:
        """Set every key of the file."""
        content = self._content()
        if content is None:  # an empty file, or one with comments only
            return
        if not isinstance(content, Mapping):
            sections = ", ".join(self.settings_cls.model_fields)
            self._report(f"must hold groups of keys: {sections}")
            return
        self._walk(content, self.settings_cls, ())

    def _walk(self, content: Mapping[Any, Any], model: type[BaseModel], prefix: Key) -> None:
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        for name, value in content.items():
            key = (*prefix, str(name))
            field = fields.get(name)
            section = section_of(field) if field else None
            if field is None:
                known = settings_of(self.settings_cls)
                self.loaded.problems.append(unknown_key(key, known, f"{self.path}: "))
            elif section is None:
                self.set_value(key, value, Origin(f"{self.path}: {'.'.join(key)}"))
            elif isinstance(value, Mapping):
                self._walk(value, section, key)
            elif isinstance(value, str) and (main_key := getattr(section, "main_key", "")):
                self._walk({main_key: value}, section, key)
            elif value is not None:  # None: a section without keys
                self._report(f"{'.'.join(key)}: must be a group of keys")

    def _content(self) -> Any:
        parse = PARSERS.get(self.path.suffix.lower())
        if parse is None:
            self._report(f"the name must end in {', '.join(PARSERS)}")
            return None
        try:
            return parse(self.path.read_text(encoding="utf-8-sig"))
        except OSError as error:
            self._report(f"cannot be read: {error.strerror}")
        except UnicodeDecodeError:
            self._report("must be UTF-8 text")
        except UnreadableError as error:
            self._report(str(error))
        return None

    def _report(self, problem: str) -> None:
        self.loaded.problems.append(f"{self.path}: {problem}")


def _cleaned(value: Any, setting: Setting) -> Any:
    """The value of a variable, or None if it is unset or empty, as in `DB_NAME=`."""
    if not isinstance(value, str):  # a value of Python, or None
        return value
    if not value.strip():
        return None
    # Blanks around a value, and the \r of a Windows file, are stripped. A password may have them.
    return value if setting.secret else value.strip()


def _hidden(value: Any) -> Any:
    if isinstance(value, str):
        return SecretStr(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return SecretStr(str(value))
    if isinstance(value, Mapping):
        return {key: _hidden(item) for key, item in value.items()}
    return [] if isinstance(value, list) else value
