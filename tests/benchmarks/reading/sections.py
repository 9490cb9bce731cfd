"""The sections of a run: each measures something and prints a table."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from observatory_embedded import temporary_database
from observatory_storage import PostgresConfig, StorageConfig, StoragePool
from tests.benchmarks.output import Output
from tests.benchmarks.reading.finding import FINDING
from tests.benchmarks.reading.keysets import Keyset, keysets
from tests.benchmarks.reading.leaving import leaving
from tests.benchmarks.reading.looking import LOOKING
from tests.benchmarks.reading.newest import written_beside
from tests.benchmarks.reading.plans import plan_of
from tests.benchmarks.reading.question import PAGE, Question
from tests.benchmarks.reading.sessions import SESSIONS
from tests.benchmarks.reading.store import Kept, warm
from tests.benchmarks.reading.summing import SUMMING
from tests.benchmarks.reading.timing import Times, hand, timed
from tests.benchmarks.reading.walking import walks, write_large_trace

__all__ = ["QUESTIONS", "SECTIONS", "Run"]

QUESTIONS: Final = (*FINDING, *SESSIONS, *LOOKING, *SUMMING)
_MOST_GROWTH: Final = 1.5
_MOST_BY_HAND: Final = 1.5
_BATCHES: Final = 20


@dataclass(frozen=True)
class Run:
    """What is measured.

    Attributes:
        server: the URL of a database on the server.
        questions: the queries that are measured.
        executions: the most executions of each query.
        seconds: the time for each query. After that, ten executions are enough.
        walk: the number of spans of the large trace.
        older: the number of spans before the newest, in the section of these.
    """

    server: str
    large: Kept
    small: Kept
    questions: Sequence[Question]
    executions: int
    seconds: float
    walk: int
    older: int


def tables(run: Run, out: Output) -> list[Any]:
    """The sizes of the tables."""
    found = run.large.tables()
    out.table(
        f"The data: {run.large.data.sizes.traces:,} traces over {run.large.data.sizes.days} days,"
        " the last of which is open",
        ("table", "rows", "table MB", "indexes MB"),
        [
            (one.name, f"{one.rows:,}", f"{one.table_mb:,.0f}", f"{one.indexes_mb:,.0f}")
            for one in found
        ],
    )
    out.table(
        "Made by CopyWriter" + (", in a run before this" if run.large.reused else ""),
        ("step", "seconds"),
        [(step, f"{seconds:.0f}") for step, seconds in run.large.seconds.items()],
    )
    return list(found)


def questions(run: Run, out: Output) -> list[Any]:
    """The durations of each query, compared with SQL by hand and with a small database."""
    found: list[Times] = []
    with hand(run.large.pool) as connection:
        for question in run.questions:
            warm(run.large)  # the system may have evicted pages that were not read for a while
            one = timed(
                question,
                run.large,
                run.small,
                connection,
                most=run.executions,
                seconds=run.seconds,
            )
            found.append(one)
            out.say(f"{one.question}: {_ms(one.p50_ms)} ms")
    small = run.small.data.sizes.spans
    out.table(
        f"{run.large.data.sizes.spans:,} spans, in ms; a ratio is our p50 over the p50 before it",
        (
            *("question", "rows", "p50", "p95", "p95 at most"),
            *("p50 by hand", "ratio", "rows of few", f"p50 of {small:,}", "ratio"),
        ),
        [
            (
                one.question,
                str(one.rows),
                _ms(one.p50_ms),
                _ms(one.p95_ms),
                _target(one),
                _ms(one.by_hand_p50_ms),
                f"{one.ratio:.2f}",
                str(one.small_rows),
                _ms(one.small_p50_ms),
                f"{one.growth:.2f}",
            )
            for one in found
        ],
    )
    for line in _missed(found):
        out.say(line)
    return list(found)


def plans(run: Run, out: Output) -> list[Any]:
    """The plans of each query."""
    found = []
    for question in run.questions:
        given = question.draw(run.large.data, random.Random(question.name))
        found.append(plan_of(question, run.large.pool, given))
    out.table(
        "What is read for one execution: EXPLAIN (ANALYZE, BUFFERS) of its statements",
        (
            *("question", "indexes, and tables read whole", "statements", "partitions"),
            *("8 kB pages", "planning ms", "execution ms"),
        ),
        [
            (
                one.question,
                ", ".join(one.reads),
                str(one.statements),
                str(one.partitions),
                f"{one.buffers:,}",
                _ms(one.planning_ms),
                _ms(one.execution_ms),
            )
            for one in found
        ],
        words=2,
    )
    return list(found)


def keyset(run: Run, out: Output) -> list[Any]:
    """Pages at both ends of a list."""
    found: list[Keyset] = keysets(run.large, run.executions)
    out.table(
        f"Pages of 50 at both ends of a list without filters, in ms, {run.executions} of each",
        ("list", "rows", "newest p50", "p95", "oldest p50", "p95", "oldest / newest"),
        [
            (
                one.name,
                f"{one.rows:,}",
                _ms(one.start_p50_ms),
                _ms(one.start_p95_ms),
                _ms(one.end_p50_ms),
                _ms(one.end_p95_ms),
                f"{one.ratio:.2f}",
            )
            for one in found
        ],
    )
    return list(found)


def walk(run: Run, out: Output) -> list[Any]:
    """A very large trace, read page by page and as a whole."""
    with (
        temporary_database(run.server) as url,
        StoragePool(StorageConfig(postgres=PostgresConfig.from_url(url))) as pool,
    ):
        pool.run_migrations()
        write_large_trace(pool, run.walk)
        found = walks(pool)
    out.table(
        f"A trace of {run.walk:,} spans, with attributes, or as a tree without them: greatest"
        " resident set of the process",
        ("by", "spans", "seconds", "MB after a page", "MB at most"),
        [
            (
                one.way,
                f"{one.spans:,}",
                f"{one.seconds:.1f}",
                f"{one.before_mb:.0f}",
                f"{one.peak_mb:.0f}",
            )
            for one in found
        ],
    )
    return list(found)


def newest(run: Run, out: Output) -> list[Any]:
    """Writing the newest rows beside slices with indexes."""
    found = [written_beside(run.server, run.older, _BATCHES)]
    out.table(
        "Writing spans and log records that are newer than the slices of their partition",
        ("spans before", "spans a batch", "ms without slices", "ms with slices", "ratio"),
        [
            (
                f"{one.older:,}",
                f"{one.spans:,}",
                _ms(one.plain_ms),
                _ms(one.beside_ms),
                f"{one.ratio:.2f}",
            )
            for one in found
        ],
    )
    return list(found)


def arrow(run: Run, out: Output) -> list[Any]:
    """Many spans, as entities and as Arrow."""
    found = leaving(run.large)
    out.table(
        "Spans that leave the store, by iterate_spans and by its to_arrow: greatest resident set of"
        " the process",
        (
            *("as", "columns", "days", "spans", "seconds", "spans a second", "times entities"),
            *("CPU us a span", "MB after a page", "MB at most"),
        ),
        [
            (
                one.way,
                one.columns,
                str(one.days),
                f"{one.spans:,}",
                f"{one.seconds:.1f}",
                f"{one.spans_a_second:,.0f}",
                "" if one.ratio is None else f"{one.ratio:.1f}",
                f"{one.cpu_us:.1f}",
                f"{one.before_mb:.0f}",
                f"{one.peak_mb:.0f}",
            )
            for one in found
        ],
        words=2,
    )
    return list(found)


Section = Callable[[Run, Output], list[Any]]
SECTIONS: Final[dict[str, Section]] = {
    "tables": tables,
    "questions": questions,
    "plans": plans,
    "keyset": keyset,
    "walk": walk,
    "arrow": arrow,
    "newest": newest,
}


def _target(one: Times) -> str:
    if one.target_ms is None:
        return ""
    return f"{one.target_ms:,.0f}{'' if one.p95_ms <= one.target_ms else ' missed'}"


def _missed(found: Sequence[Times]) -> list[str]:
    """The targets that were missed, or a line that all were met."""
    lines = [
        f"MISSED: {one.question}: p95 {_ms(one.p95_ms)} ms, at most {one.target_ms:,.0f}"
        for one in found
        if one.target_ms is not None and one.p95_ms > one.target_ms
    ]
    lines += [
        f"MISSED: {one.question}: {one.growth:.2f} times the small database, at most {_MOST_GROWTH}"
        for one in found
        if one.paged and one.growth > _MOST_GROWTH
    ]
    lines += [
        f"MISSED: {one.question}: {one.ratio:.2f} times by hand, at most {_MOST_BY_HAND}"
        for one in found
        if one.rows == PAGE and one.ratio > _MOST_BY_HAND
    ]
    return lines or ["All targets are met."]


def _ms(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"
