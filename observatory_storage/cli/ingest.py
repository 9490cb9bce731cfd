"""``ingest``: files of OTLP into the storage."""

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
from observatory_storage.cli.output import new_console, table
from observatory_storage.cli.requests import Payload, payloads
from observatory_storage.cli.state import State, common_options, json_option
from observatory_storage.cli.text import clean, tokens
from observatory_storage.errors import ConfigError, ValidationError
from observatory_storage.pool import StoragePool

__all__ = ["ingest"]

_SHOWN_PROBLEMS = 20  # of a file; all of them are counted
_INTO: dict[str, tuple[str, Callable[[StoragePool, bytes], otlp.IngestResult]]] = {
    "traces": ("spans", otlp.ingest_traces),
    "metrics": ("data_points", otlp.ingest_metrics),
    "logs": ("logs", otlp.ingest_logs),
}


@dataclass(slots=True)
class _Report:
    """What became of a file."""

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


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True))
@json_option
@common_options
@click.pass_obj
def ingest(state: State, files: tuple[Path, ...]) -> None:
    """Store OTLP from FILES; - is standard input.

    A file is one request in JSON or protobuf, or has a request in JSON on every line, as a
    collector's file exporter writes them. Which signal each request carries is seen from it.
    Ingesting a file again changes nothing.

    What cannot be stored is named on standard error and costs nothing else; the exit code is 1.
    """
    state.start_logging()
    output = state.output()
    reports = []
    with state.pool() as pool, _progress(files, state) as advance:
        for file in files:
            report = _ingest_file(pool, file, advance)
            reports.append(report)
            _complain(report)
            if output.json:
                output.write(_summary(report))
    if not output.json:
        rows = [
            [
                report.file,
                tokens(report.requests),
                *(tokens(report.accepted[what]) for what, _ in _INTO.values()),
                tokens(report.rejected),
            ]
            for report in reports
        ]
        titles = ("FILE*", ">REQUESTS", ">SPANS", ">DATA POINTS", ">LOGS", ">REJECTED")
        output.show(table(titles, rows))
    if any(report.failed for report in reports):
        raise click.exceptions.Exit(1)


def _ingest_file(pool: StoragePool, path: Path, advance: Callable[[int], None]) -> _Report:
    name = "standard input" if str(path) == "-" else clean(str(path))
    report = _Report(name)
    try:
        with _opened(path) as file:
            for payload in payloads(file, advance):
                _ingest_request(pool, payload, report)
    except OSError as error:
        report.problem(name, f"cannot be read: {error.strerror or error}")
    else:
        if not report.requests and not report.failed:
            report.problem(name, "is empty: no OTLP request in it")
    return report


def _ingest_request(pool: StoragePool, payload: Payload, report: _Report) -> None:
    place = f"{report.file}:{payload.line}" if payload.line else report.file
    try:
        what, store = _INTO[otlp.detect_signal(payload.content)]
        result = store(pool, payload.content)
    except (ValidationError, ConfigError) as error:  # protobuf without the extra, for one
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
    columns = (TextColumn("ingesting"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    # On a terminal only: a log file is no place for a bar.
    hidden = not console.is_terminal or state.json
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task("ingest", total=_size(files))
        yield lambda count: progress.advance(task, count)


def _size(files: tuple[Path, ...]) -> int | None:
    """The bytes to read; None where nobody can know."""
    try:
        if any(str(file) == "-" for file in files):
            return None
        return sum(file.stat().st_size for file in files)
    except OSError:
        return None  # said when the file's turn comes


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
