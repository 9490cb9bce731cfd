"""Measures what tail sampling costs the thread that writes spans, and what it saves afterwards.

All kinds take turns, so that the differences do not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Sequence
from statistics import median
from typing import Any, Final

from rich.console import Console

from observatory_storage import (
    StoragePool,
    TailSampling,
    TraceWriter,
    WriterConfig,
)
from tests.benchmarks.measure import migrated_pool, own_heap_frozen
from tests.benchmarks.output import Output
from tests.benchmarks.workload import wide_span_rows

__all__ = ["KINDS", "main"]

KINDS: Final[dict[str, TailSampling | None]] = {
    "no sampling": None,
    "all kept": TailSampling(share=1),
    "a tenth kept": TailSampling(share=0.1),
    "by time and cost too": TailSampling(
        share=0.1, slower_than_secs=3_600, costlier_than_usd=1_000
    ),
}


def main(given: Sequence[str] | None = None) -> None:
    """Measure, and print the medians of the CPU time of a span."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="rounds of each kind")
    parser.add_argument("--spans", type=int, default=5_000, help="spans in a round")
    arguments = parser.parse_args(given)
    out = Output(Console(highlight=False))
    with migrated_pool() as pool:
        # Spans are written when they end, so the root of a trace comes last.
        rows = list(wide_span_rows(arguments.spans))[::-1]
        _compare(out, pool, arguments.rounds, rows)


def _compare(out: Output, pool: StoragePool, rounds: int, rows: list[dict[str, Any]]) -> None:
    writing: dict[str, list[float]] = {kind: [] for kind in KINDS}
    together: dict[str, list[float]] = {kind: [] for kind in KINDS}
    kinds = list(KINDS)
    with own_heap_frozen():
        for number in range(rounds + 1):
            turn = number % len(kinds)
            for kind in kinds[turn:] + kinds[:turn]:
                patient = WriterConfig(
                    batch_size=len(rows), flush_interval_secs=None, sampling=KINDS[kind]
                )
                spans = [_anew(row, number, kinds.index(kind)) for row in rows]
                with TraceWriter(pool, patient) as writer:
                    gc.collect()
                    of_all, of_thread = time.process_time(), time.thread_time()
                    for span in spans:
                        writer.write_span(span)
                    written = time.thread_time() - of_thread
                    writer.flush()
                    whole = time.process_time() - of_all
                if number:  # the first round warms up
                    writing[kind].append(written / len(rows) * 1e6)
                    together[kind].append(whole / len(rows) * 1e6)
    out.say(f"CPU of the client for a span: median of {rounds} rounds of {len(rows):,} spans")
    base = median(writing["no sampling"])
    for kind in kinds:
        written, whole = median(writing[kind]), median(together[kind])
        out.say(
            f"  {kind:22} write {written:6.2f} µs {written - base:+6.2f} µs, in all {whole:6.2f} µs"
        )


def _anew(row: dict[str, Any], number: int, kind: int) -> dict[str, Any]:
    """The span in another trace of its own round."""
    return {**row, "trace_id": f"{int(row['trace_id'], 16) ^ (number * 8 + kind + 1):032x}"}


if __name__ == "__main__":
    main()
