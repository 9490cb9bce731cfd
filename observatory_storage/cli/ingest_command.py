"""``ingest``: store OTLP from files."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from observatory_storage import otlp
from observatory_storage.cli.common_options import (
    State,
    StorageCommand,
    common_options,
    json_option,
)
from observatory_storage.cli.console import new_console
from observatory_storage.cli.formatting import clean, count
from observatory_storage.cli.otlp_files import Payload, payloads
from observatory_storage.cli.text_table import Column, table
from observatory_storage.errors import ConfigError, ValidationError
from observatory_storage.otlp.compression import MAX_BODY_BYTES
from observatory_storage.otlp.trace_values import has_trace_values, store_trace_values
from observatory_storage.pool import StoragePool

__all__ = ["command"]

_SHOWN_PROBLEMS = 20  # of each file; all are counted
_INTO: dict[str, tuple[str, Callable[[StoragePool, bytes], otlp.IngestResult]]] = {
    "traces": ("spans", otlp.ingest_traces),
    "metrics": ("data_points", otlp.ingest_metrics),
    "logs": ("logs", otlp.ingest_logs),
}
_COLUMNS = (
    Column("FILE", narrowest=6, keep=9),
    *(
        Column(title, right=True)
        for title in ("REQUESTS", "SPANS", "DATA POINTS", "LOGS", "REJECTED")
    ),
)


@dataclass(slots=True)
class _Report:
    """The result of one file."""

    file: str
    requests: int = 0
    accepted: Counter[str] = field(default_factory=Counter)
    rejected: int = 0
    problems: list[str] = field(default_factory=list)
    _unshown: int = 0

    def problem(self, place: str, message: str) -> None:
        if len(self.problems) < _SHOWN_PROBLEMS:
            self.problems.append(f"{place}: {message}")
        else:
            self._unshown += 1

    def lines(self) -> Iterator[str]:
        yield from self.problems
        if self._unshown:
            yield f"{self.file}: {self._unshown} more problems"

    @property
    def failed(self) -> bool:
        return bool(self.problems)


@click.command("ingest", cls=StorageCommand)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True))
@click.option(
    "--max-request-bytes",
    type=click.IntRange(min=1),
    default=MAX_BODY_BYTES,
    show_default=True,
    help="The bound on the decompressed size of a request.",
)
@json_option
@common_options
@click.pass_obj
def command(state: State, files: tuple[Path, ...], max_request_bytes: int) -> None:
    """Store OTLP from FILES; - is standard input.

    A file is one request in JSON or protobuf, or has one request in JSON on each line, as `export`
    and the archive of `retention` write it, or is what the file exporter of the OpenTelemetry
    Collector writes, in JSON or protobuf. It may be compressed (gzip, zstd). All of this is
    recognised by its content, and so is the signal of a request. Ingesting a file again changes
    nothing.

    When a file, a line or an item cannot be stored, it is reported on standard error, everything
    else is stored, and the exit code is 1.
    """
    output = state.output()
    reports = []
    with state.pool() as pool, _progress(files, state) as advance:
        for file in files:
            report = _ingest_file(pool, file, advance, max_request_bytes)
            reports.append(report)
            _complain(report)
            if output.json:
                output.write(_summary(report))
    if not output.json:
        rows = [
            [
                report.file,
                count(report.requests),
                *(count(report.accepted[what]) for what, _ in _INTO.values()),
                count(report.rejected),
            ]
            for report in reports
        ]
        output.show(table(_COLUMNS, rows))
    if any(report.failed for report in reports):
        raise click.exceptions.Exit(1)


def _ingest_file(
    pool: StoragePool, path: Path, advance: Callable[[int], None], max_request_bytes: int
) -> _Report:
    name = "standard input" if str(path) == "-" else clean(str(path))
    report = _Report(name)
    try:
        with _opened(path) as file:
            for payload in payloads(file, advance, max_request_bytes):
                _ingest_request(pool, payload, report)
    except OSError as error:
        report.problem(name, f"cannot be read: {error.strerror or error}")
    except (ValidationError, ConfigError) as error:  # such as zstd without the extra
        report.problem(name, str(error))
    else:
        if not report.requests and not report.failed:
            report.problem(name, "is empty: it has no OTLP request")
    return report


def _ingest_request(pool: StoragePool, payload: Payload, report: _Report) -> None:
    place = f"{report.file}{payload.place}"
    if isinstance(payload.content, ValidationError):
        report.problem(place, str(payload.content))
        return
    try:
        if has_trace_values(payload.content):
            store_trace_values(pool, payload.content)
            report.requests += 1
            return
        what, store = _INTO[otlp.detect_signal(payload.content)]
        result = store(pool, payload.content)
    except (ValidationError, ConfigError) as error:  # such as protobuf without the extra
        report.problem(place, str(error))
        return
    report.requests += 1
    report.accepted[what] += result.accepted
    report.rejected += len(result.rejected)
    for rejected in result.rejected:
        report.problem(place, f"number {rejected.index + 1} of its {what}: {rejected.error}")


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if str(path) == "-":
        yield sys.stdin.buffer
        return
    with path.open("rb") as file:
        yield file


@contextmanager
def _progress(files: tuple[Path, ...], state: State) -> Iterator[Callable[[int], None]]:
    console = new_console(stderr=True)
    if not console.is_terminal or state.json:  # a bar would fill log files
        yield lambda _: None
        return
    columns = (TextColumn("ingesting"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("ingest", total=_size(files))
        yield lambda count: progress.advance(task, count)


def _size(files: tuple[Path, ...]) -> int | None:
    """The bytes to read; None where that is not known."""
    try:
        if any(str(file) == "-" for file in files):
            return None
        return sum(file.stat().st_size for file in files)
    except OSError:
        return None  # reported when the file is read


def _complain(report: _Report) -> None:
    console = new_console(stderr=True)
    for line in report.lines():
        console.print(
            Text("error: ", style="bold red").append(clean(line), style=""), soft_wrap=True
        )


def _summary(report: _Report) -> dict[str, object]:
    return {
        "file": report.file,
        "requests": report.requests,
        "accepted": {what: report.accepted[what] for what, _ in _INTO.values()},
        "rejected": report.rejected,
        "problems": list(report.lines()),
    }
