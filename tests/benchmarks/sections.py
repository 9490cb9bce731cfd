"""The parts of a run: what each measures, and how it is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from observatory_storage import StoragePool
from tests.benchmarks.growth import Growth, growth
from tests.benchmarks.limit import encoded
from tests.benchmarks.measure import Result, compare
from tests.benchmarks.memory import memory_of_writer
from tests.benchmarks.ours import AUTO, COPY, END_TO_END, FLUSHED, INSERT, STEPS, by_threads
from tests.benchmarks.peers import ASYNCPG, CORE, PEERS
from tests.benchmarks.small import rows_for, small_batches
from tests.benchmarks.workload import Workload, data_points, logs, narrow_spans, wide_spans

__all__ = ["SECTIONS", "Sizes"]

_KINDS: Final = (wide_spans, narrow_spans, logs, data_points)
_THREADS: Final = (1, 2, 4)
_MAIN_WAYS: Final = (*STEPS, COPY, INSERT, END_TO_END, ASYNCPG, CORE)
_ALL_WAYS: Final = (*STEPS, COPY, AUTO, INSERT, END_TO_END, *PEERS)


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        rows: rows that a technique writes in a round.
        batch: rows a transaction, unless a section varies it.
        batches: the sizes that are compared.
        flushes: the most transactions a round of small batches has.
        calls: calls of each method with a few rows.
        buffered: spans for the measurement of memory.
        spans: how far the table grows.
        everything: also the slowest ways on every kind of rows.
    """

    rows: int
    batch: int
    rounds: int
    batches: tuple[int, ...]
    flushes: int
    calls: int
    buffered: int
    spans: int
    everything: bool = False


def techniques(pool: StoragePool, sizes: Sizes, console: Console) -> list[Any]:
    """Ways of writing, ours and others', on the four kinds of rows."""
    found: list[Result] = []
    for made in _KINDS:
        load = made(sizes.rows)
        ways = _ALL_WAYS if sizes.everything or made is wide_spans else _MAIN_WAYS
        results = compare(pool, load, ways, sizes.batch, sizes.rounds)
        console.print(_compared(f"{load.name}, {_wire(pool, load)}", results))
        found += results
    return found


def batch_sizes(pool: StoragePool, sizes: Sizes, console: Console) -> list[Any]:
    """Batches from one row to many: rates, and how long a flush takes."""
    whole = wide_spans(max(sizes.rows, *sizes.batches))
    found: list[Result] = []
    for batch in sizes.batches:
        load = whole.first(max(min(sizes.rows, batch * sizes.flushes), batch))
        results = compare(pool, load, (COPY, INSERT, FLUSHED, CORE), batch, sizes.rounds)
        console.print(_compared(load.name, results, flushes=True))
        found += results
    return found


def threads(pool: StoragePool, sizes: Sizes, console: Console) -> list[Any]:
    """Several threads, and several connections."""
    load = wide_spans(sizes.rows)
    # So that each of the most threads has several batches.
    batch = max(1, min(sizes.batch, sizes.rows // (2 * max(_THREADS))))
    ways = [technique for count in _THREADS for technique in by_threads(count)]
    results = compare(pool, load, ways, batch, sizes.rounds)
    console.print(_compared(f"{load.name}, by threads", results))
    return list(results)


def few_rows(pool: StoragePool, sizes: Sizes, console: Console) -> list[Any]:
    """INSERT or COPY for a few rows: where "auto" changes over."""
    loads = [made(rows_for(sizes.calls)) for made in _KINDS]
    columns = [small_batches(pool, load, sizes.calls) for load in loads]
    title = f"CopyWriter, ms a call by INSERT | by COPY: medians of {sizes.calls} each, in turn"
    table = _table(title, "rows a call", *(load.name for load in loads))
    for line in zip(*columns, strict=True):
        cells = [f"{one.insert_ms:.2f} | {one.copy_ms:.2f}" for one in line]
        table.add_row(str(line[0].rows), *cells)
    console.print(table)
    return [one for column in columns for one in column]


def memory(pool: StoragePool, sizes: Sizes, console: Console) -> list[Any]:
    """The greatest resident set of a process that writes."""
    spans = sizes.buffered
    small = max(1, spans // 10)
    results = [
        memory_of_writer(pool, spans, batch, max_buffered)
        for batch, max_buffered in (
            (spans, spans),
            (min(1000, spans), spans),
            (min(1000, small), small),
        )
    ]
    title = f"TraceWriter, {spans:,} wide spans: greatest resident set"
    table = _table(title, "max_buffered", "batch_size", "MB before", "MB at most")
    for one in results:
        table.add_row(
            f"{one.max_buffered:,}", f"{one.batch:,}", f"{one.before_mb:.0f}", f"{one.peak_mb:.0f}"
        )
    console.print(table)
    return list(results)


def growing(pool: StoragePool, sizes: Sizes, console: Console) -> list[Any]:
    """Throughput as the table grows."""

    def tell(one: Growth) -> None:
        console.print(
            f"{one.before:>12,} spans there already: {one.rows_per_second:>10,.0f} rows/s,"
            f" client CPU {one.client_us:.1f} µs/row"
        )

    console.print(f"CopyWriter, wide LLM spans, {sizes.batch:,} a transaction")
    results = growth(pool, sizes.spans, sizes.batch, _stretches(sizes.spans), tell)
    change = results[-1].rows_per_second / results[0].rows_per_second
    console.print(f"the last stretch at {change:.2f} of the rate of the first\n")
    return list(results)


Section = Callable[[StoragePool, Sizes, Console], list[Any]]
SECTIONS: Final[dict[str, Section]] = {
    "techniques": techniques,
    "batch_sizes": batch_sizes,
    "threads": threads,
    "few_rows": few_rows,
    "memory": memory,
    "growth": growing,
}


def _stretches(spans: int) -> int:
    return max(1, spans // 1_000_000) if spans >= 2_000_000 else 2


def _wire(pool: StoragePool, load: Workload) -> str:
    rows = load.prepared[:1000]
    return f"{len(encoded(pool, load.table, rows)) / len(rows):,.0f} bytes each on the wire"


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left")
    for at, heading in enumerate(headings):
        table.add_column(heading, justify="right" if at else "left")
    return table


def _compared(subject: str, results: list[Result], *, flushes: bool = False) -> Table:
    first = results[0]
    table = _table(
        f"{subject}: {first.rows:,} rows, {first.batch:,} a transaction,"
        f" medians of {first.rounds} interleaved rounds",
        *("technique", "rows/s", "CPU µs/row", "of limit"),
        *(("p50 ms", "p95 ms") if flushes else ()),
    )
    for one in results:
        cells = [
            one.technique,
            f"{one.rows_per_second:,.0f}",
            f"{one.client_us:.1f}",
            f"{one.ratio:.2f}",
        ]
        if flushes:
            cells += [_ms(one.flush_p50_ms), _ms(one.flush_p95_ms)]
        table.add_row(*cells)
    return table


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
