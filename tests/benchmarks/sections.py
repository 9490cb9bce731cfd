"""The sections of a run: each measures something and prints a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from observatory_storage import StoragePool
from tests.benchmarks.growth import Growth, growth
from tests.benchmarks.limit import encoded
from tests.benchmarks.measure import Result, compare
from tests.benchmarks.memory import memory_of_writer
from tests.benchmarks.ours import AUTO, COPY, END_TO_END, FLUSHED, INSERT, STEPS, by_threads
from tests.benchmarks.output import Output
from tests.benchmarks.payloads import compare_payloads
from tests.benchmarks.peers import ASYNCPG, CORE, PEERS
from tests.benchmarks.publishing import compare_publishing
from tests.benchmarks.small import rows_for, small_batches
from tests.benchmarks.ways_in import OTLP, SHAPES, exported
from tests.benchmarks.workload import Workload, data_points, logs, narrow_spans, wide_spans

__all__ = ["SECTIONS", "Sizes"]

_KINDS: Final = (wide_spans, narrow_spans, logs, data_points)
_THREADS: Final = (1, 2, 4)
_REQUESTS: Final = (50, 500, 5_000)  # items in an OTLP request
_MAIN_WAYS: Final = (COPY, INSERT, END_TO_END, ASYNCPG, CORE)
_ALL_WAYS: Final = (*STEPS, COPY, AUTO, INSERT, END_TO_END, *PEERS)


@dataclass(frozen=True)
class Sizes:
    """The sizes of a run.

    Attributes:
        rows: rows that a technique writes in a round.
        batch: rows in a transaction, unless a section varies it.
        batches: the batch sizes that are compared.
        flushes: the most transactions in a round of small batches.
        calls: the calls of each method with a few rows.
        buffered: the spans for the measurement of memory.
        spans: the final size of the growing table.
        days: the number of days, and so of partitions, over which these spans are spread.
        everything: whether to run the slowest techniques on every kind of row.
    """

    rows: int
    batch: int
    rounds: int
    batches: tuple[int, ...]
    flushes: int
    calls: int
    buffered: int
    spans: int
    days: int
    everything: bool = False


def techniques(pool: StoragePool, sizes: Sizes, out: Output) -> list[Any]:
    """All techniques on the four kinds of rows."""
    found: list[Result] = []
    for made in _KINDS:
        load = made(sizes.rows)
        ways = _ALL_WAYS if sizes.everything or made is wide_spans else _MAIN_WAYS
        results = compare(pool, load, ways, sizes.batch, sizes.rounds)
        _show(out, f"{load.name}, {_wire(pool, load)}", results)
        found += results
    return found


def batch_sizes(pool: StoragePool, sizes: Sizes, out: Output) -> list[Any]:
    """Batch sizes from one row to many: rates and durations of flushes."""
    whole = wide_spans(max(sizes.rows, *sizes.batches))
    found: list[Result] = []
    for batch in sizes.batches:
        load = whole.first(max(min(sizes.rows, batch * sizes.flushes), batch))
        results = compare(pool, load, (COPY, INSERT, FLUSHED, CORE), batch, sizes.rounds)
        _show(out, load.name, results, flushes=True)
        found += results
    return found


def ways_in(pool: StoragePool, sizes: Sizes, out: Output) -> list[Any]:
    """What users pass: OTLP of the three signals, spans of every shape; and the export."""
    found: list[Any] = []
    for made in (wide_spans, logs, data_points):
        whole = made(max(sizes.rows, 1))
        for batch in sorted({min(size, sizes.rows) for size in _REQUESTS}):
            load = whole.first(max(min(sizes.rows, batch * sizes.flushes), batch))
            found += compare(pool, load, OTLP, batch, sizes.rounds)
            _show(out, load.name, found[-1 - len(OTLP) :])
    spans = wide_spans(sizes.rows)
    shapes = compare(pool, spans, SHAPES, sizes.batch, sizes.rounds)
    _show(out, f"{spans.name}, by their shape", shapes)
    out_again = exported(pool, spans, sizes.rounds)
    out.table(
        f"export_traces, {out_again.rows:,} wide spans",
        ("spans/s", "CPU µs/span"),
        [(f"{out_again.rows_per_second:,.0f}", f"{out_again.client_us:.1f}")],
    )
    return [*found, *shapes, out_again]


def payloads(pool: StoragePool, sizes: Sizes, out: Output) -> list[Any]:
    """Large values in their rows, and compressed beside them."""
    results = compare_payloads(pool, sizes.rows, sizes.batch, sizes.rounds)
    out.table(
        f"payloads inline / compressed, {sizes.batch:,} rows a transaction",
        ("rows", "by", "rows/s", "ratio", "bytes a row", "ratio"),
        [
            (
                one.workload,
                one.technique,
                f"{one.inline:,.0f} / {one.compressed:,.0f}",
                f"{one.ratio:.2f}",
                f"{one.inline_bytes:,.0f} / {one.compressed_bytes:,.0f}",
                f"{one.compressed_bytes / one.inline_bytes:.2f}",
            )
            for one in results
        ],
        words=2,
    )
    return list(results)


def publishing(pool: StoragePool, sizes: Sizes, out: Output) -> list[Any]:
    """What publishing to Redis Streams costs the writers."""
    results = compare_publishing(pool, sizes.rows, sizes.rounds)
    out.table(
        "writers without / with a stream, 1,000 rows a transaction",
        ("rows", "published", "rows/s", "ratio", "CPU µs/row more", "lag ms", "lost"),
        [
            (
                one.workload,
                one.mode,
                f"{one.without:,.0f} / {one.with_stream:,.0f}",
                f"{one.ratio:.2f}",
                f"{one.client_us:.1f}",
                f"{one.lag_ms:.1f}",
                f"{one.lost:,}",
            )
            for one in results
        ],
        words=2,
    )
    return list(results)


def threads(pool: StoragePool, sizes: Sizes, out: Output) -> list[Any]:
    """Several threads, and several connections."""
    load = wide_spans(max(1, sizes.rows // 2))
    # Each thread gets several batches, even with the most threads.
    batch = max(1, min(sizes.batch, len(load.rows) // (2 * max(_THREADS))))
    ways = [technique for count in _THREADS for technique in by_threads(count)]
    results = compare(pool, load, ways, batch, sizes.rounds)
    _show(out, f"{load.name}, by threads", results)
    return list(results)


def few_rows(pool: StoragePool, sizes: Sizes, out: Output) -> list[Any]:
    """INSERT and COPY of a few rows, which shows where "auto" should switch."""
    loads = [made(rows_for(sizes.calls)) for made in _KINDS]
    columns = [small_batches(pool, load, sizes.calls) for load in loads]
    out.table(
        f"CopyWriter, ms a call by INSERT / by COPY: medians of {sizes.calls} each, in turn",
        ("rows a call", *(load.name for load in loads)),
        [
            (str(line[0].rows), *(f"{one.insert_ms:.2f} / {one.copy_ms:.2f}" for one in line))
            for line in zip(*columns, strict=True)
        ],
    )
    return [one for column in columns for one in column]


def memory(pool: StoragePool, sizes: Sizes, out: Output) -> list[Any]:
    """The greatest resident set of a process that writes."""
    spans = sizes.buffered
    small = max(1, spans // 10)
    results = [
        memory_of_writer(pool, spans, batch, max_buffered)
        for batch, max_buffered in ((spans, spans), (min(1000, small), small))
    ]
    out.table(
        f"TraceWriter, {spans:,} wide spans written: greatest resident set of the process;"
        " where the buffer can hold all of them, their table was locked meanwhile",
        ("max_buffered", "batch_size", "MB before", "MB at most"),
        [
            (
                f"{one.max_buffered:,}",
                f"{one.batch:,}",
                f"{one.before_mb:.0f}",
                f"{one.peak_mb:.0f}",
            )
            for one in results
        ],
    )
    return list(results)


def growing(pool: StoragePool, sizes: Sizes, out: Output) -> list[Any]:
    """Throughput as the table grows."""

    def tell(one: Growth) -> None:
        out.say(
            f"{one.spans:,} more than {one.before:,} spans: {one.rows_per_second:,.0f} rows/s,"
            f" {one.of_empty:.2f} of empty tables' at the same time"
        )

    results = growth(pool, sizes.spans, sizes.days, sizes.batch, tell)
    first = results[0]
    out.table(
        f"CopyWriter, wide spans, {sizes.batch:,} a transaction, {results[0].spans:,} at a time,"
        f" {sizes.spans // sizes.days:,} a day",
        ("spans there before", "rows/s", "CPU µs/row", "of the first", "of empty", "of the first"),
        [
            (
                f"{one.before:,}",
                f"{one.rows_per_second:,.0f}",
                f"{one.client_us:.1f}",
                f"{one.rows_per_second / first.rows_per_second:.2f}",
                f"{one.of_empty:.2f}",
                f"{one.of_empty / first.of_empty:.2f}",
            )
            for one in results
        ],
    )
    return list(results)


Section = Callable[[StoragePool, Sizes, Output], list[Any]]
SECTIONS: Final[dict[str, Section]] = {
    "techniques": techniques,
    "ways_in": ways_in,
    "payloads": payloads,
    "publishing": publishing,
    "batch_sizes": batch_sizes,
    "threads": threads,
    "few_rows": few_rows,
    "memory": memory,
    "growth": growing,
}


def _wire(pool: StoragePool, load: Workload) -> str:
    rows = load.prepared[:1000]
    return f"{len(encoded(pool, load.table, rows)) / len(rows):,.0f} bytes each on the wire"


def _show(out: Output, subject: str, results: list[Result], *, flushes: bool = False) -> None:
    first = results[0]
    headings = ["technique", "rows", "rows/s", "CPU µs/row", "of limit"]
    rows = [
        [
            one.technique,
            f"{one.rows:,}",
            f"{one.rows_per_second:,.0f}",
            f"{one.client_us:.1f}",
            f"{one.ratio:.2f}",
            *([_ms(one.flush_p50_ms), _ms(one.flush_p95_ms)] if flushes else []),
        ]
        for one in results
    ]
    out.table(
        f"{subject}: {first.batch:,} a transaction, medians of {first.rounds} interleaved rounds",
        [*headings, "p50 ms", "p95 ms"] if flushes else headings,
        rows,
    )


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
