"""An error as a line on standard error, with advice below it."""

from __future__ import annotations

import traceback

from rich.text import Text

from observatory_storage.cli.advice import advice_for
from observatory_storage.cli.common_options import State
from observatory_storage.cli.console import new_console
from observatory_storage.cli.formatting import clean
from observatory_storage.errors import ConfigError, NotFound, StorageError, ValidationError

__all__ = ["report"]

# Their message says everything: a value is wrong, or a row is not there.
_SELF_EXPLANATORY = (ConfigError, NotFound, ValidationError)


def report(error: Exception, state: State) -> None:
    """Print an error that ended a command."""
    if isinstance(error, StorageError):
        message, advice = str(error), advice_for(error, state)
    else:
        message, advice = f"{type(error).__name__}: {error}", None
    console = new_console(stderr=True)
    if state.debug:
        trace = "".join(traceback.format_exception(error))
        console.print(Text(trace.rstrip(), style="dim"))
    first, *rest = message.splitlines() or [""]
    line = Text("error: ", style="bold red").append(clean(first), style="")
    console.print(line, soft_wrap=True)
    for each in [*rest, *([advice] if advice else [])]:
        console.print(Text(f"  {clean(each.strip())}"), soft_wrap=True)
    if not (state.debug or advice is not None or isinstance(error, _SELF_EXPLANATORY)):
        console.print(Text("  --log-level debug shows where it happened", style="dim"))
