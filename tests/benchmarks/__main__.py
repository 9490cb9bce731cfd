"""Measures writing, and compares it with the fastest rate that the server allows."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from observatory_embedded import temporary_database
from observatory_storage import PostgresConfig, StorageConfig, StoragePool
from tests.benchmarks.machine import machine_description
from tests.benchmarks.output import Output
from tests.benchmarks.report import save
from tests.benchmarks.sections import SECTIONS, Sizes

_DOCS: Final = Path(__file__).parents[2] / "docs" / "benchmarks"
_IDLE: Final = 0.6  # load average of the last minute
_BATCHES: Final = (1, 10, 100, 1_000, 20_000)
_ALL_BATCHES: Final = (1, 10, 100, 1_000, 2_000, 5_000, 10_000, 20_000)


def main(given: Sequence[str] | None = None) -> None:
    """Measure, print the results, and save them with --save."""
    arguments = _arguments(given)
    sizes = Sizes(
        rows=arguments.rows,
        batch=arguments.batch,
        rounds=arguments.rounds,
        batches=tuple(arguments.batches or (_ALL_BATCHES if arguments.all else _BATCHES)),
        flushes=arguments.flushes,
        calls=arguments.calls,
        buffered=arguments.buffered,
        spans=arguments.spans,
        days=arguments.days,
        everything=arguments.all,
    )
    names = arguments.only or [name for name in SECTIONS if arguments.all or name != "growth"]
    out = Output(Console(highlight=False))
    url = os.environ.get("DATABASE_URL")
    started = time.monotonic()
    with (
        temporary_database(url, settings=None, in_memory=False) as database,
        StoragePool(StorageConfig(postgres=PostgresConfig.from_url(database))) as pool,
    ):
        pool.run_migrations()
        head: dict[str, Any] = {
            "command": shlex.join(["python", "-m", "tests.benchmarks", *_words(given)]),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            **machine_description(pool, embedded=url is None),
            "load_before": os.getloadavg()[0],
        }
        for topic, told in head.items():
            out.say(f"{topic}: {_told(told)}")
        if head["load_before"] > _IDLE:
            out.say("The machine is not idle: the numbers will say less than they could.")
        out.say("")
        results = {}
        for name in names:
            out.begin(name)
            results[name] = SECTIONS[name](pool, sizes, out)
    head["seconds"] = round(time.monotonic() - started)
    out.say(f"{head['seconds']} s in all")
    if arguments.save:
        for path in save(arguments.save, head, results, out.tables):
            out.say(f"wrote {path}")


def _words(given: Sequence[str] | None) -> Sequence[str]:
    return sys.argv[1:] if given is None else given


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    return str(value)


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=__doc__,
        epilog="DATABASE_URL names a server to measure, in a database of its own; its role needs"
        " CREATEDB, and pg_checkpoint for steady numbers. Without it, one is started.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--all", action="store_true", help="the growing table, more batch sizes, slow ways"
    )
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), help="these sections alone")
    parser.add_argument("--rows", type=int, default=20_000, help="rows a technique and round")
    parser.add_argument("--batch", type=int, default=10_000, help="rows a transaction")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds")
    parser.add_argument("--batches", type=int, nargs="+", help="rows a transaction, compared")
    parser.add_argument("--flushes", type=int, default=100, help="transactions of small batches")
    parser.add_argument("--calls", type=int, default=30, help="calls with a few rows")
    parser.add_argument("--buffered", type=int, default=100_000, help="spans in memory")
    parser.add_argument("--spans", type=int, default=5_000_000, help="how far the table grows")
    parser.add_argument("--days", type=int, default=10, help="days that these spans start in")
    parser.add_argument(
        "--save",
        type=Path,
        nargs="?",
        const=_DOCS,
        help="write JSON and charts to docs/benchmarks, tables to docs/copy.md",
    )
    return parser.parse_args(given)


if __name__ == "__main__":
    main()
