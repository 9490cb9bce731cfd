"""``export``: prints stored telemetry as OTLP in JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from observatory_storage.cli import logs_command, traces_command
from observatory_storage.cli.common_options import (
    State,
    StorageCommand,
    common_options,
    replica_option,
)
from observatory_storage.cli.filter_options import log_filters, metric_filters, trace_filters
from observatory_storage.otlp.export import export_logs, export_metrics, export_traces
from observatory_storage.repositories import MetricFilters

__all__ = ["command"]


@click.group("export")
def command() -> None:
    """Print traces, metrics or logs as OTLP, one request in JSON on each line.

    The lines are what the file exporter of the OpenTelemetry Collector writes. `ingest` stores them
    again, and any OTLP receiver accepts them.
    """


_output_option = click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this file instead of standard output. An existing file is replaced.",
)


@command.command("traces", cls=StorageCommand)
@trace_filters
@_output_option
@replica_option
@common_options
@click.pass_obj
def traces(state: State, /, *, output: Path | None, **given: Any) -> None:
    """Print whole traces, with all their spans and events.

    A trace is exported when one of its spans meets every condition.
    """
    with state.pool() as pool:
        with pool.unit_of_work(read_only=state.replica) as work:
            filters = traces_command.filters_of(work, given)
        _write(state, output, export_traces(pool, filters, read_only=state.replica))


@command.command("logs", cls=StorageCommand)
@log_filters
@_output_option
@replica_option
@common_options
@click.pass_obj
def logs(state: State, /, *, output: Path | None, **given: Any) -> None:
    """Print log records, the oldest first."""
    with state.pool() as pool:
        with pool.unit_of_work(read_only=state.replica) as work:
            filters = logs_command.filters_of(work, given)
        _write(state, output, export_logs(pool, filters, read_only=state.replica))


@command.command("metrics", cls=StorageCommand)
@click.argument("name", required=False)
@metric_filters
@_output_option
@replica_option
@common_options
@click.pass_obj
def metrics(state: State, /, *, output: Path | None, **given: Any) -> None:
    """Print metrics, or those called NAME, with all their data points."""
    with state.pool() as pool:
        _write(
            state,
            output,
            export_metrics(pool, MetricFilters(**given), read_only=state.replica),
        )


def _write(state: State, path: Path | None, requests: Iterable[dict[str, Any]]) -> None:
    with _line_writer(state, path) as write:
        for request in requests:
            write(json.dumps(request, separators=(",", ":")).encode() + b"\n")


@contextmanager
def _line_writer(state: State, path: Path | None) -> Iterator[Callable[[bytes], Any]]:
    if path is None:
        yield state.output().write_bytes
        return
    try:
        file = path.open("wb")
    except OSError as error:
        raise click.FileError(str(path), error.strerror) from error
    with file:
        yield file.write
