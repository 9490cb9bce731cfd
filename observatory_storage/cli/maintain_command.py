"""``maintain``: do what the store needs from time to time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import click
from rich.text import Text

from observatory_storage.cli import option_types
from observatory_storage.cli.common_options import (
    State,
    StorageCommand,
    common_options,
    json_option,
)
from observatory_storage.cli.console import Output, new_console
from observatory_storage.cli.formatting import clean
from observatory_storage.lifecycle.maintenance import (
    MaintenanceError,
    MaintenanceReport,
    MaintenanceStep,
)

__all__ = ["command"]


@click.command("maintain", cls=StorageCommand)
@click.option(
    "--for",
    "for_secs",
    type=option_types.duration,
    metavar="DURATION",
    help="Stop after about this time, such as 60s or 5m. The next run does the rest. [no bound]",
)
@json_option
@common_options
@click.pass_obj
def command(state: State, for_secs: timedelta | None) -> None:
    """Do what the store needs from time to time: run it every minute, for example from cron.

    Readers and writers go on meanwhile. If another run is under way, this one does nothing. It can
    be interrupted at any point; the next run goes on where it stopped. The exit code is 1 if a
    step failed; the other steps run all the same.
    """
    output, errors = state.output(), new_console(stderr=True)
    with state.pool() as pool, errors.status("maintaining") as status:

        def tell(line: str) -> None:
            status.update(clean(line))

        try:
            seconds = None if for_secs is None else for_secs.total_seconds()
            report = pool.maintain(seconds, progress=tell)
        except MaintenanceError as error:
            status.stop()
            _show(output, error.report)
            raise
    _show(output, report)


def _show(output: Output, report: MaintenanceReport) -> None:
    if output.json:
        output.write(report.to_dict(json=True))
        return
    if report.is_skipped:
        output.show(Text("another run is under way"))
        return
    for step in report.steps:
        output.show(_line(step))
    for name in report.left:
        output.show(Text(f"{name:<22} left for the next run", style="dim"))


def _line(step: MaintenanceStep) -> Text:
    if step.error is not None:
        line = Text(f"{step.name:<22} failed: {clean(str(step.error))}", style="red")
    else:
        assert step.result is not None
        line = Text(f"{step.name:<22} {clean(summary(step.result.to_dict(json=True)))}")
    line.append(f"  {step.duration_secs:.1f} s", style="dim")
    return line


def summary(result: dict[str, Any]) -> str:
    """What a step did, in one line: counts, and how many there are of what is listed."""
    told = []
    for name, value in result.items():
        count = len(value) if isinstance(value, list) else value
        if count and isinstance(count, (int, float)) and not isinstance(count, bool):
            told.append(f"{count:,} {_words(name, is_one=count == 1)}")
    return ", ".join(told) or "nothing to do"


def _words(name: str, *, is_one: bool) -> str:
    words = name.replace("_", " ")
    return words.removesuffix("s") if is_one else words
