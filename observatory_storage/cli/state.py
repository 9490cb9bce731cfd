"""What all commands share: the common options, and the pool that they lead to."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from observatory_storage.cli.output import Output, new_console
from observatory_storage.config import StorageConfig
from observatory_storage.pool import StoragePool

__all__ = ["State", "common_options", "json_option"]

_LEVELS = ("debug", "info", "warning", "error")

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(slots=True)
class State:
    """The common options as given, on the group or on the command."""

    config_file: Path | None = None
    log_level: str = "error"
    json: bool = False

    @property
    def debug(self) -> bool:
        """Whether everything is to be shown, tracebacks included."""
        return self.log_level == "debug"

    def output(self) -> Output:
        """Where the command's results go."""
        return Output(new_console(), json=self.json)

    def config(self) -> StorageConfig:
        """The configuration: of the file where one is given, else of the environment alone.

        Raises:
            ConfigError: it is not usable.
        """
        if self.config_file is not None:
            return StorageConfig.from_file(self.config_file)
        return StorageConfig.from_env()

    def pool(self) -> StoragePool:
        """A pool that connects when it is first used: most commands need one connection."""
        return StoragePool(self.config(), connect=False)

    def start_logging(self) -> None:
        """Send the package's log to standard error, from the chosen level on."""
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger = logging.getLogger("observatory_storage")
        logger.handlers = [handler]
        logger.setLevel(self.log_level.upper())


def _setter(field: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def put(context: click.Context, _: click.Parameter, value: Any) -> None:
        if value is not None:
            setattr(context.ensure_object(State), field, value)

    return put


def common_options(command: Command) -> Command:
    """The options that stand before or after the command's name."""
    for option in (
        click.option(
            "--log-level",
            type=click.Choice(_LEVELS),
            expose_value=False,
            callback=_setter("log_level"),
            help="How much to tell of what happens inside; debug shows tracebacks too.",
        ),
        click.option(
            "--config",
            type=click.Path(path_type=Path),
            expose_value=False,
            callback=_setter("config_file"),
            help="A .yaml, .toml or .json file; the environment and .env win over it.",
        ),
    ):
        command = option(command)
    return command


json_option = click.option(
    "--json",
    is_flag=True,
    default=None,
    expose_value=False,
    callback=_setter("json"),
    help="Print JSON for programs.",
)
