"""``retention``: delete what is older than it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.text import Text

from observatory_storage.cli.common_options import (
    State,
    StorageCommand,
    common_options,
    json_option,
)
from observatory_storage.cli.console import new_console
from observatory_storage.cli.formatting import clean, count, size
from observatory_storage.cli.text_table import Column, table
from observatory_storage.config import RetentionConfig
from observatory_storage.config.durations import parse_duration
from observatory_storage.lifecycle.retention import apply_retention
from observatory_storage.lifecycle.retention_results import RetentionResult
from observatory_storage.lifecycle.run import Deadline, Run
from observatory_storage.wording import counted

__all__ = ["command"]

_COLUMNS = (
    Column("PARTITION", keep=9, narrowest=12),
    Column("FROM", keep=3),
    Column("TO", keep=4),
    Column("ROWS", right=True, keep=5),
    Column("SIZE", right=True, keep=6),
    Column("KEPT", right=True, keep=2),
    Column("OUTCOME", keep=8),
)
_DURATION = "such as 90d, 12h or 2w"


@click.command("retention", cls=StorageCommand)
@click.option("--dry-run", is_flag=True, help="Show what would go, and change nothing.")
@click.option("--traces", metavar="AGE", help=f"Keep traces for this long, {_DURATION}.")
@click.option("--metrics", metavar="AGE", help=f"Keep data points for this long, {_DURATION}.")
@click.option("--logs", metavar="AGE", help=f"Keep log records for this long, {_DURATION}.")
@click.option(
    "--max-bytes",
    metavar="SIZE",
    help="Drop the oldest partitions until all tables fit, such as 100GB or 1.5TiB.",
)
@click.option(
    "--archive",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write rows to files in this directory before they are deleted; `ingest` takes them back.",
)
@click.option("--for", "for_secs", metavar="TIME", help="Stop after this time, such as 60s or 10m.")
@json_option
@common_options
@click.pass_obj
def command(state: State, /, *, dry_run: bool, for_secs: str | None, **given: Any) -> int:
    """Delete rows that are older than they are kept.

    The settings are those of the section `retention`; options override them. Without settings and
    options nothing is deleted. Whole partitions are dropped while others read and write. Traces
    that reach beyond them, pinned traces and those that `retention.keep` names are spared. Ages
    count from the start of a span, the time of a data point or of a log record.

    The exit code is 1 when something is left to do, because other transactions did not let go of a
    partition or the time was over. The next run goes on.
    """
    output = state.output()
    with state.pool() as pool:
        config = _config(pool.config.retention, given)
        seconds = None
        if for_secs is not None:
            seconds = parse_duration(for_secs, "for_secs").total_seconds()
        run = Run(pool, deadline=Deadline(seconds), progress=_progress(state))
        done = apply_retention(run, dry_run=dry_run, config=config)
    if output.json:
        output.write(done)
    else:
        rows = [
            (
                one.partition,
                "-" if one.lower is None else f"{one.lower:%Y-%m-%d %H:%M}",
                f"{one.upper:%Y-%m-%d %H:%M}",
                count(one.rows),
                size(one.bytes),
                count(one.kept_rows) if one.kept_rows else "",
                one.outcome,
            )
            for one in done.partitions
        ]
        output.show(table(_COLUMNS, rows))
        for line in _summary(done):
            output.show(Text(line))
    return int(not done.is_complete)


def _config(settings: RetentionConfig, given: dict[str, Any]) -> RetentionConfig:
    """The settings, with the options instead of those that are given.

    Raises:
        ValidationError: a duration is not valid.
        ConfigError: another option is not valid.
    """
    values = {name: getattr(settings, name) for name in RetentionConfig.model_fields}
    for name in ("traces", "metrics", "logs"):
        if given[name] is not None:
            values[name] = parse_duration(given[name], name)
    for name in ("max_bytes", "archive"):
        if given[name] is not None:
            values[name] = given[name]
    return RetentionConfig(**values)


def _progress(state: State) -> Any:
    console = new_console(stderr=True)
    if not console.is_terminal or state.json:  # lines would fill log files
        return lambda _: None
    return lambda line: console.print(Text(clean(line), style="dim"))


def _summary(done: RetentionResult) -> list[str]:
    verb = "would be deleted" if done.dry_run else "deleted"
    kept = counted(done.kept_traces, "old one")
    lines = [f"{counted(done.traces, 'trace')} {verb}, {kept} spared"]
    if done.metrics:
        lines.append(f"{counted(done.metrics, 'metric')} without data points {verb}")
    lines += [
        f"archived {count(file.items)} in {file.path} ({size(file.bytes)})"
        for file in done.archives
    ]
    if not done.is_complete:
        lines.append("not complete: the next run goes on")
    return lines
