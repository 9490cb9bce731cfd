"""The statistics of a buffered writer, and how they are kept."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from observatory_storage.rows import Row
from observatory_storage.serialization import Result
from observatory_storage.storing import Method, StoreResult, chosen_method

__all__ = ["BufferStats", "FlushResult", "Recorder", "WriteStats", "Written"]

_RECENT_SECS: Final = 60
_LATEST_FLUSHES: Final = 1000


@dataclass(frozen=True, slots=True)
class FlushResult(Result):
    """What became of the rows written since the last flush that returned.

    Attributes:
        committed: rows that PostgreSQL has committed, also those that went in the background.
        spooled: rows that are safe in the spool, or have come into the database from there.
    """

    committed: int = 0
    spooled: int = 0


@dataclass(frozen=True, slots=True)
class BufferStats(Result):
    """The buffer at this moment.

    Attributes:
        buffered: rows that are not committed yet, events included.
        in_flight: those of them that a flush is writing.
        capacity: how many may be buffered.
    """

    buffered: int
    in_flight: int
    capacity: int


@dataclass(slots=True)
class WriteStats(Result):
    """What a writer has done since it began; after a fork, since that.

    The latencies are those of the latest 1,000 batches that were committed straight from the
    buffer, each from the moment when a flush took it up to its commit, retries included; a
    percentile is the smallest of them that so many do not exceed, and 0.0 where there is none yet.

    Attributes:
        rows: rows committed straight from the buffer, a span with its events being one.
        batches: batches that these went in, each one transaction unless some of it was refused.
        bytes: what was sent of rows, in attempts that failed too: for COPY all of it, for INSERT
            their JSON and text.
        retries: attempts that a passing error made necessary.
        failed_flushes: flushes after which rows stayed in the buffer.
        rejected: rows refused by the database for their data.
        dropped: rows not taken because the buffer was full.
        redacted: rows that the redaction hook kept back.
        repaired: values changed because PostgreSQL cannot hold them.
        spooled: rows put into the spool.
        replayed: rows committed from the spool, those that other processes had left included.
        damaged: lines of the spool that could not be read; their files are kept.
        flush_seconds: seconds spent in flushes, all together, those that failed included.
        flush_seconds_p50: median latency.
        flush_seconds_p95: 95th percentile of the latencies.
        flush_seconds_p99: 99th percentile of the latencies.
        flush_seconds_max: the greatest of the latencies.
        rows_per_second: `rows` over the whole time since the writer began.
        recent_rows_per_second: the same over the last minute, or since the writer began.
        rows_by_method: `rows` by "copy" and "insert".
        batches_by_method: `batches` by the method that took most of their rows.
    """

    rows: int = 0
    batches: int = 0
    bytes: int = 0
    retries: int = 0
    failed_flushes: int = 0
    rejected: int = 0
    dropped: int = 0
    redacted: int = 0
    repaired: int = 0
    spooled: int = 0
    replayed: int = 0
    damaged: int = 0
    flush_seconds: float = 0.0
    flush_seconds_p50: float = 0.0
    flush_seconds_p95: float = 0.0
    flush_seconds_p99: float = 0.0
    flush_seconds_max: float = 0.0
    rows_per_second: float = 0.0
    recent_rows_per_second: float = 0.0
    rows_by_method: dict[str, int] = field(default_factory=dict)
    batches_by_method: dict[str, int] = field(default_factory=dict)


class Written(NamedTuple):
    """What a batch brought into the database.

    Attributes:
        result: what `store` has told.
        rows_by_method: how many rows were committed.
        method: the one that took most rows.
    """

    result: StoreResult
    rows_by_method: Counter[str]
    method: str

    @classmethod
    def of(cls, rows: Sequence[Row], result: StoreResult, method: Method) -> Written:
        """What the result says of these rows, which were written as `method` says."""
        if result.rejected:
            refused = {one.index for one in result.rejected}
            rows = [row for index, row in enumerate(rows) if index not in refused]
        by_method: Counter[str] = Counter()
        for number in Counter([row.table for row in rows]).values():
            by_method[chosen_method(method, number)] += number
        most = max(by_method, key=by_method.__getitem__, default=chosen_method(method, 0))
        return cls(result, by_method, most)


class Recorder:
    """Keeps the statistics of one writer; to be used under its lock.

    Attributes:
        counts: what is only counted.
    """

    def __init__(self) -> None:
        self.counts = WriteStats()
        self._began = time.monotonic()
        self._latencies: deque[float] = deque(maxlen=_LATEST_FLUSHES)
        # Rows committed in each second of the monotonic clock, where there were any.
        self._recent: deque[tuple[int, int]] = deque(maxlen=_RECENT_SECS)

    def committed(self, written: Written, seconds: float) -> None:
        """A batch has been written, in so many seconds."""
        counts, result = self.counts, written.result
        counts.rows += result.committed
        counts.batches += 1
        counts.retries += result.retries
        counts.rejected += len(result.rejected)
        for method, rows in written.rows_by_method.items():
            counts.rows_by_method[method] = counts.rows_by_method.get(method, 0) + rows
        batches = counts.batches_by_method
        batches[written.method] = batches.get(written.method, 0) + 1
        self._latencies.append(seconds)
        second, rows = int(time.monotonic()), result.committed
        if self._recent and self._recent[-1][0] == second:
            rows += self._recent.pop()[1]
        self._recent.append((second, rows))

    def stats(self) -> WriteStats:
        """All of it at this moment: a copy, which does not change any more."""
        now = time.monotonic()
        age = now - self._began
        window = min(age, _RECENT_SECS)
        recent = sum(rows for second, rows in self._recent if second > now - _RECENT_SECS)
        ordered = sorted(self._latencies)
        return replace(
            self.counts,
            rows_by_method=dict(self.counts.rows_by_method),
            batches_by_method=dict(self.counts.batches_by_method),
            flush_seconds_p50=_percentile(ordered, 50),
            flush_seconds_p95=_percentile(ordered, 95),
            flush_seconds_p99=_percentile(ordered, 99),
            flush_seconds_max=_percentile(ordered, 100),
            rows_per_second=self.counts.rows / age if age else 0.0,
            recent_rows_per_second=recent / window if window else 0.0,
        )


def _percentile(ordered: Sequence[float], percent: int) -> float:
    """The nearest rank: the smallest value that so many per cent of all do not exceed."""
    return ordered[math.ceil(len(ordered) * percent / 100) - 1] if ordered else 0.0
