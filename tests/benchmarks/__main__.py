"""`make bench`: what writing costs, against the fastest that the server itself allows."""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from observatory_storage import PostgresConfig, StorageConfig, StoragePool
from observatory_storage.embedded import temporary_database
from tests.benchmarks import workload
from tests.benchmarks.measure import Result, compare
from tests.benchmarks.techniques import OURS, PEERS


def main() -> None:
    arguments = _arguments()
    console = Console()
    with (
        temporary_database(os.environ.get("DATABASE_URL"), settings=None, in_memory=False) as url,
        StoragePool(StorageConfig(postgres=PostgresConfig.from_url(url))) as pool,
    ):
        pool.run_migrations()
        machine = _machine(pool)
        console.print(machine)
        results: list[Result] = []
        for load, techniques in (
            (workload.wide_spans(arguments.rows), OURS + PEERS),
            (workload.narrow_spans(arguments.rows), OURS[:1] + OURS[2:]),
            (workload.logs(arguments.rows), OURS[:1] + OURS[2:]),
            (workload.data_points(arguments.rows), OURS[:1] + OURS[2:]),
        ):
            found = compare(pool, load, techniques, arguments.batch, arguments.rounds)
            console.print(_table(found))
            results += found
    if arguments.json:
        report = {"machine": machine, "results": [asdict(result) for result in results]}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000, help="rows a run writes")
    parser.add_argument("--batch", type=int, default=10_000, help="rows a transaction")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds")
    parser.add_argument("--json", type=Path, help="write the results to this file")
    return parser.parse_args()


def _machine(pool: StoragePool) -> str:
    version = pool.health_check().postgres.version
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()},"
        f" PostgreSQL {version}"
    )


def _table(results: list[Result]) -> Table:
    first = results[0]
    table = Table(
        title=f"{first.workload}: {first.rows:,} rows, {first.batch:,} a transaction,"
        f" medians of {first.rounds} interleaved rounds",
        title_justify="left",
    )
    table.add_column("technique")
    for heading in ("rows/s", "client CPU µs/row", "of the limit"):
        table.add_column(heading, justify="right")
    for result in results:
        table.add_row(
            result.technique,
            f"{result.rows_per_second:,.0f}",
            f"{result.client_us:.1f}",
            f"{result.ratio:.2f}",
        )
    return table


if __name__ == "__main__":
    main()
