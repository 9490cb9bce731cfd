"""Measures what packing saves where each span of a trace came with a flush of its own."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence

from rich.console import Console
from sqlalchemy import text

from observatory_embedded import temporary_database
from observatory_storage import (
    CopyWriter,
    PayloadsConfig,
    PostgresConfig,
    StorageConfig,
    StoragePool,
)
from observatory_storage.lifecycle.closing import close_partitions
from observatory_storage.lifecycle.run import Run
from tests.benchmarks.texts import chats, prompts
from tests.benchmarks.workload import SPANS_A_TRACE

_TABLES = ("traces", "trace_spans", "trace_events", "payload_frames")
_SIZE = text(
    "SELECT sum(pg_total_relation_size(relid)) FROM unnest(CAST(:tables AS text[])) AS one,"
    " pg_partition_tree(CAST(one AS regclass))"
)
_FRAMES = text("SELECT count(*), coalesce(sum(octet_length(data)), 0) FROM payload_frames")


def main(given: Sequence[str] | None = None) -> None:
    """Write each workload both ways, close its partitions, and print the sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spans", type=int, default=20_000)
    arguments = parser.parse_args(given)
    out = Console(highlight=False, width=200)
    for made in (prompts, chats):
        load = made(arguments.spans)
        flushes = [
            load.rows[first::SPANS_A_TRACE][begin : begin + 100]
            for begin in range(0, arguments.spans // SPANS_A_TRACE, 100)
            for first in range(SPANS_A_TRACE)
        ]
        out.print(f"{load.name}, {arguments.spans:,} spans, one of each trace in a flush")
        for mode in ("inline", "compressed"):
            with temporary_database(
                os.environ.get("DATABASE_URL"), settings=None, in_memory=False
            ) as url:
                config = StorageConfig(
                    postgres=PostgresConfig.from_url(url),
                    payloads=PayloadsConfig.model_validate({"mode": mode}),
                )
                with StoragePool(config) as pool:
                    pool.run_migrations()
                    for flush in flushes:
                        CopyWriter(pool).write_spans(flush)
                    out.print(f"  {mode}: {_sizes(pool, arguments.spans)}")
                    began = time.perf_counter()
                    closed = close_partitions(Run(pool))
                    assert closed.is_complete, closed
                    took = time.perf_counter() - began
                    out.print(f"  closed in {took:.1f} s: {_sizes(pool, arguments.spans)}")


def _sizes(pool: StoragePool, spans: int) -> str:
    with pool.engine.connect() as connection:
        total = connection.scalar(_SIZE, {"tables": list(_TABLES)})
        frames = connection.scalar(_SIZE, {"tables": ["payload_frames"]})
        count, data = connection.execute(_FRAMES).one()
    assert total is not None
    assert frames is not None
    return (
        f"{total / spans:,.0f} B a span, of them frames {frames / spans:,.0f} B,"
        f" with {count:,} frames of {data / spans:,.0f} B a span"
    )


if __name__ == "__main__":
    main()
