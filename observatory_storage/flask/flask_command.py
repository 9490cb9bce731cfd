"""``flask observatory``: the command line with the settings of the application."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import click
from flask.cli import with_appcontext

from observatory_storage.cli.common_options import State, logging_as_before, names_read
from observatory_storage.cli.main import run
from observatory_storage.flask.app_store import AppStore

if TYPE_CHECKING:
    from observatory_storage.config import StorageConfig
    from observatory_storage.pool import StoragePool

__all__ = ["command_of"]


def command_of(store: Callable[[], AppStore]) -> click.Command:
    """The command, for the store of the current application."""

    @click.command(
        "observatory",
        add_help_option=False,  # `flask observatory --help` is help of the command line
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
        help="Check, migrate, maintain and read the store of traces, metrics and logs.",
    )
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    @click.pass_context
    @with_appcontext
    def command(context: click.Context, arguments: Sequence[str]) -> None:
        with logging_as_before():
            code = run(arguments, _AppState(store=store()), _AppState.program)
        context.exit(code)

    return command


@dataclass(slots=True, kw_only=True)
class _AppState(State):
    """Takes the settings of the application. ``--config`` names a file below all of them."""

    program: ClassVar[str] = "flask observatory"
    store: AppStore

    def sources(self) -> list[str]:
        return names_read(self.store.sources(self.config_file))

    def config(self) -> StorageConfig:
        return self.store.config(self.config_file)

    def pool(self, *, connect: bool = False) -> StoragePool:
        # Not the pool of the application, since a command closes its own.
        return self.store.new_pool(self.config_file, connect=connect)
