"""Measures the queries of the repositories, on millions of rows and on few."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from observatory_embedded import FAST_SETTINGS, EmbeddedPostgres
from tests.benchmarks.machine import machine_description
from tests.benchmarks.output import Output
from tests.benchmarks.reading.dataset import Sizes
from tests.benchmarks.reading.saving import save
from tests.benchmarks.reading.sections import QUESTIONS, SECTIONS, Run
from tests.benchmarks.reading.store import stored, warm

_DOCS: Final = Path(__file__).parents[3] / "docs" / "benchmarks"
_IDLE: Final = 0.6  # load average of the last minute
_WIDTH: Final = 170  # of lines that go into a file
# Settings for loading, since lost data can be loaded again. Reading uses the default settings.
_SETTINGS: Final = {
    **FAST_SETTINGS,
    "max_wal_size": "4GB",
    "checkpoint_timeout": "30min",
    "maintenance_work_mem": "1GB",
}
_TOLD: Final = (
    "shared_buffers",
    "effective_cache_size",
    "work_mem",
    "maintenance_work_mem",
    "random_page_cost",
    "max_parallel_workers_per_gather",
    "default_toast_compression",
    "fsync",
)


def main(given: Sequence[str] | None = None) -> None:
    """Load missing data, measure, print the results, and save them with --save."""
    parser = _parser()
    arguments = parser.parse_args(given)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH)
    out = Output(console)
    started = time.monotonic()
    head: dict[str, Any] = {
        "command": shlex.join(
            [
                "python",
                "-m",
                "tests.benchmarks.reading",
                *(sys.argv[1:] if given is None else given),
            ]
        ),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        sizes = _sizes(arguments)
        small = sizes.part(max(1, sizes.spans // arguments.small))
    except ValueError as error:
        parser.error(str(error))
    name = arguments.name
    make: Any = {"jobs": arguments.jobs, "again": arguments.reload, "tell": out.say}
    with (
        _server(arguments) as server,
        stored(server, f"{name}_{small.spans}_small", small, **make) as of_small,
        stored(server, f"{name}_{sizes.spans}", sizes, **make) as of_large,
    ):
        out.say(f"read into memory in {warm(of_large) + warm(of_small):.0f} s")
        embedded = not os.environ.get("DATABASE_URL")
        head |= machine_description(of_large.pool, embedded=embedded, names=_TOLD)
        if embedded:
            head["server"] = "embedded: on this machine, by socket"
        # The setting does not tell whether the build of the server supports JIT.
        with of_large.pool.engine.connect() as connection:
            jit = connection.exec_driver_sql("SELECT pg_jit_available()").scalar_one()
        head["settings"]["jit"] = "on" if jit else "off"
        head["load_before"] = os.getloadavg()[0]
        for topic, told in head.items():
            out.say(f"{topic}: {_told(told)}")
        if head["load_before"] > _IDLE and not arguments.reload:
            out.say("Loading or others kept this machine busy in the last minute.")
        run = Run(
            server=server,
            large=of_large,
            small=of_small,
            questions=[one for one in QUESTIONS if (arguments.ask or "") in one.name],
            executions=arguments.executions,
            seconds=arguments.seconds,
            walk=arguments.walk,
            older=arguments.older,
        )
        results = {}
        for section in arguments.only or SECTIONS:
            out.begin(section)
            results[section] = SECTIONS[section](run, out)
    head["seconds"] = round(time.monotonic() - started)
    out.say(f"{head['seconds']} s in all")
    if arguments.save:
        for path in save(arguments.save, head, results, out.tables):
            out.say(f"wrote {path}")


@contextmanager
def _server(arguments: argparse.Namespace) -> Iterator[str]:
    url = os.environ.get("DATABASE_URL")
    if url:
        yield url
        return
    settings = {**_SETTINGS, **dict(arguments.setting)}
    with EmbeddedPostgres(arguments.database_directory, settings=settings) as server:
        yield server.url


def _sizes(arguments: argparse.Namespace) -> Sizes:
    spans = arguments.spans
    return Sizes(
        spans=spans,
        traces=arguments.traces or spans // 10,
        logs=arguments.logs or spans,
        points=arguments.points or spans,
        days=arguments.days,
    )


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    return str(value)


def _setting(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError(f"{text} is not NAME=VALUE")
    return name, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.reading",
        description=__doc__,
        epilog="The data are loaded where they are not there yet. DATABASE_URL names a server to"
        " keep them on, in databases of their own; its role needs CREATEDB. Without it a server"
        " is started, whose data --database-directory keeps.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--spans", type=int, default=5_000_000, help="spans in all")
    parser.add_argument("--traces", type=int, help="a tenth of the spans unless given")
    parser.add_argument("--logs", type=int, help="as many as spans unless given")
    parser.add_argument("--points", type=int, help="as many as spans unless given")
    parser.add_argument("--days", type=int, default=10, help="over which they are spread")
    parser.add_argument("--small", type=int, default=50_000, help="spans of the small database")
    parser.add_argument("--walk", type=int, default=100_000, help="spans of the large trace")
    parser.add_argument("--older", type=int, default=50_000, help="spans before the newest")
    parser.add_argument("--executions", type=int, default=200, help="of each question, at most")
    parser.add_argument("--seconds", type=float, default=20, help="for each question, about")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), help="these sections alone")
    parser.add_argument("--ask", help="only the questions with this in their names")
    parser.add_argument(
        "--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes that load"
    )
    parser.add_argument(
        "--database-directory", type=Path, help="keeps the data of the server that is started"
    )
    parser.add_argument(
        "--setting",
        type=_setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the server that is started; more than once for more",
    )
    parser.add_argument(
        "--name", default="observatory_read", help="what the databases' names begin with"
    )
    parser.add_argument("--reload", action="store_true", help="load again what is there")
    parser.add_argument(
        "--save",
        type=Path,
        nargs="?",
        const=_DOCS,
        help="write JSON and a chart to docs/benchmarks, tables to docs/reading.md",
    )
    return parser


if __name__ == "__main__":
    main()
