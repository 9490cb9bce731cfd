"""The command line with the settings of a Django project."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from observatory_storage.cli.common_options import State, names_read
from observatory_storage.errors import ConfigError

if TYPE_CHECKING:
    from observatory_storage.config import StorageConfig

__all__ = ["ProjectState"]

_MANAGEMENT_COMMANDS = ("check", "maintain", "migrate")


@dataclass(slots=True)
class ProjectState(State):
    """The common options of the command line; the configuration is that of the project."""

    program: ClassVar[str] = "manage.py observatory"

    def command(self, name: str) -> str:
        """The management command of its own, if the command has one."""
        return f"manage.py observatory{'_' if name in _MANAGEMENT_COMMANDS else ' '}{name}"

    def variable(self, name: str) -> str:
        """The setting of the project."""
        from observatory_storage.config.application_source import PREFIX

        return f"{PREFIX}{name.removeprefix(PREFIX)}"

    def config(self) -> StorageConfig:
        """The configuration by ``OBSERVATORY_*`` and ``DATABASES``.

        Raises:
            ConfigError: a setting is invalid, or ``--config`` is given.
        """
        from observatory_storage.django.app_settings import storage_config

        if self.config_file is not None:
            raise ConfigError("--config: the settings of the project are the configuration here")
        return storage_config()

    def sources(self) -> list[str]:
        """The settings that the configuration is read from."""
        from observatory_storage.django.app_settings import settings_sources

        return names_read(settings_sources())
