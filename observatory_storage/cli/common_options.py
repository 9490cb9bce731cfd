"""The options of every command, and the configuration and the pool made from them."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import click

# Everything else is imported where it is used: --version and --help need none of it.
if TYPE_CHECKING:
    from observatory_storage.cli.console import Output
    from observatory_storage.config import StorageConfig
    from observatory_storage.config.sources import Source
    from observatory_storage.pool import StoragePool
    from observatory_storage.unit_of_work import UnitOfWork

__all__ = [
    "State",
    "StorageCommand",
    "common_options",
    "json_option",
    "logging_as_before",
    "names_read",
    "replica_option",
]

_LEVELS = ("debug", "info", "warning", "error")

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(slots=True)
class State:
    """The common options as given, on the group or on the command.

    The commands of a web framework have a subclass, which takes the settings of an application.
    """

    config_file: Path | None = None
    log_level: str | None = None
    json: bool = False
    replica: bool = False
    program: ClassVar[str] = "observatory-storage"  # what advice tells people to type

    def command(self, name: str) -> str:
        """What people type to run a command."""
        return f"{self.program} {name}"

    def variable(self, name: str) -> str:
        """What people set in place of a variable of the environment."""
        return name

    @property
    def debug(self) -> bool:
        """Whether to show everything, tracebacks included."""
        return self.log_level == "debug"

    def output(self) -> Output:
        """Standard output in the chosen form."""
        from observatory_storage.cli.console import Output, new_console

        return Output(new_console(), json=self.json)

    def config(self) -> StorageConfig:
        """The configuration, from the file if one is given, and from the environment.

        Raises:
            ConfigError: the configuration is invalid.
        """
        from observatory_storage.config import StorageConfig

        if self.config_file is not None:
            return StorageConfig.from_file(self.config_file)
        return StorageConfig.from_env()

    def sources(self) -> list[str]:
        """Where the configuration is read from: the source that takes precedence first."""
        from observatory_storage.config import StorageConfig
        from observatory_storage.config.sources import DotEnvSource, VariablesSource

        names = names_read((VariablesSource(StorageConfig), DotEnvSource(StorageConfig)))
        return names if self.config_file is None else [*names, str(self.config_file)]

    def pool(self, *, connect: bool = False) -> StoragePool:
        """A pool that connects when it is first used: most commands need one connection."""
        from observatory_storage.pool import StoragePool

        return StoragePool(self.config(), connect=connect)

    @contextmanager
    def reading(self) -> Iterator[UnitOfWork]:
        """A unit of work of a pool of its own: read only if the command has `replica_option`."""
        with self.pool() as pool, pool.unit_of_work(read_only=self.replica) as work:
            yield work

    def start_logging(self, default_level: str) -> None:
        """Log the package's messages of the chosen level and above to standard error."""
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        logger = logging.getLogger("observatory_storage")
        logger.handlers = [handler]
        logger.setLevel((self.log_level or default_level).upper())


@contextmanager
def logging_as_before() -> Iterator[None]:
    """Undo what a command sets for its whole process, which goes on if it is an application's."""
    logger = logging.getLogger("observatory_storage")
    handlers, level = logger.handlers, logger.level
    try:
        yield
    finally:
        logger.handlers = handlers
        logger.setLevel(level)


def names_read(sources: Iterable[Source]) -> list[str]:
    """The names that settings sources have values of."""
    names = []
    for source in sources:
        source.read()
        # The parts of a URL are listed one by one: "DATABASE_URL (host)".
        names += [origin.name.partition(" (")[0] for origin in source.loaded.origins.values()]
    return list(dict.fromkeys(names))


class StorageCommand(click.Command):
    """A command that sets up logging, and reports a refused value by the name of its option.

    Therefore the parameter of an option has the name of the filter field that it sets: ``--since``
    sets ``start_time``.

    Attributes:
        default_log_level: the lowest level that is logged unless an option says otherwise.
    """

    default_log_level = "error"

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command.

        Raises:
            click.BadParameter: an option's value is refused.
        """
        from observatory_storage.errors import ValidationError

        ctx.ensure_object(State).start_logging(self.default_log_level)
        try:
            return super().invoke(ctx)
        except ValidationError as error:
            options = {str(option.name): option for option in self.params}
            if error.field not in options:
                raise
            rule = error.rule
            if error.position is None:  # else the rule shows what was typed
                rule = re.sub(
                    r"\w+",
                    lambda name: (
                        max(options[name[0]].opts, key=len) if name[0] in options else name[0]
                    ),
                    rule,
                )
            raise click.BadParameter(rule, ctx, options[error.field]) from error


def _setter(field: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def store(context: click.Context, _: click.Parameter, value: Any) -> None:
        if value is not None:
            setattr(context.ensure_object(State), field, value)

    return store


def common_options(command: Command) -> Command:
    """Add the options that may stand before or after the command's name."""
    for option in (
        click.option(
            "--log-level",
            type=click.Choice(_LEVELS),
            expose_value=False,
            callback=_setter("log_level"),
            help="The lowest level to log to standard error; debug also shows tracebacks.",
        ),
        click.option(
            "--config",
            type=click.Path(path_type=Path),
            expose_value=False,
            callback=_setter("config_file"),
            help="A .yaml, .toml or .json file. The environment and .env override it.",
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

replica_option = click.option(
    "--replica",
    is_flag=True,
    default=None,
    expose_value=False,
    callback=_setter("replica"),
    help="Read from the server of DATABASE_READ_URL, which may be behind.",
)
