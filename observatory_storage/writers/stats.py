"""The statistics of a buffered writer."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from observatory_storage.operations import Measurement
from observatory_storage.rows import Row
from observatory_storage.serialization import Result
from observatory_storage.storing import Method, StoreResult, chosen_method

__all__ = ["BufferStats", "FlushResult", "Recorder", "WriteStats", "Written"]

_RECENT_SECS: Final = 60
_LATEST_FLUSHES: Final = 1000


@dataclass(frozen=True, slots=True)
class FlushResult(Result):
    """The result of a flush: the rows since the last flush that returned.

    Attributes:
        committed: the number of rows that PostgreSQL has committed, including background flushes.
        spooled: the number of rows that were spooled, including those that were replayed since.
        lsn: a position in the primary's write-ahead log behind everything that was committed, also
            by earlier flushes and other threads; None unless the pool has a read server, and also
            if the writer has committed nothing yet, if rows were spooled, or if the primary did not
            tell it in time. Pass the result to `StoragePool.unit_of_work` to read these rows:
            without a position, it asks for one.
    """

    committed: int = 0
    spooled: int = 0
    lsn: str | None = None


@dataclass(frozen=True, slots=True)
class BufferStats(Result):
    """The state of a buffer.

    Attributes:
        buffered: the number of rows that are not committed yet, events included.
        in_flight: the number of these rows that a flush is writing.
        capacity: the maximum number of buffered rows.
        undecided: the number of buffered rows whose traces tail sampling has not decided yet.
    """

    buffered: int
    in_flight: int
    capacity: int
    undecided: int = 0


@dataclass(slots=True)
class WriteStats(Result):
    """The statistics of a writer since it was created, or since a fork in a forked child.

    Latencies cover the latest 1,000 batches that were committed directly from the buffer. The
    latency of a batch is the time from the moment a flush takes it until its commit, retries
    included. Percentiles are nearest-rank, and 0.0 if there is no latency yet.

    Attributes:
        rows: the number of rows committed directly from the buffer. A span with its events counts
            as one.
        batches: the number of batches of these rows. A batch is one transaction unless some of its
            rows were refused.
        bytes: the number of bytes sent for rows, including failed attempts: for COPY all data, for
            INSERT the JSON and text values.
        retries: the number of attempts that were repeated after a transient error.
        failed_flushes: the number of flushes after which rows stayed in the buffer.
        rejected: the number of rows that the database refused for their data.
        dropped: the number of rows that were dropped because the buffer was full.
        redacted: the number of rows that the redaction hook dropped.
        dropped_by_rules: the number of rows that rules of the configuration dropped.
        sampled_out: the number of rows that tail sampling dropped.
        sampled_out_traces: the number of traces that tail sampling dropped.
        decided_early: the number of traces that tail sampling decided before their root had ended,
            because too many rows were held.
        repaired: the number of values that were changed because PostgreSQL cannot store them.
        spooled: the number of rows that were spooled.
        replayed: the number of rows committed from the spool, including those of other processes.
        damaged: the number of spool lines that could not be read. Their files are kept.
        flush_seconds: the total seconds spent in flushes, including failed ones.
        flush_seconds_p50: the median latency, in seconds.
        flush_seconds_p95: the 95th percentile of the latencies, in seconds.
        flush_seconds_p99: the 99th percentile of the latencies, in seconds.
        flush_seconds_max: the greatest latency, in seconds.
        rows_per_second: `rows` divided by the seconds since the writer was created.
        recent_rows_per_second: the same over the last minute, or since the writer was created.
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
    dropped_by_rules: int = 0
    sampled_out: int = 0
    sampled_out_traces: int = 0
    decided_early: int = 0


class Written(NamedTuple):
    """The result of writing a batch.

    Attributes:
        result: the result of `store`.
        rows_by_table: the number of committed rows by table.
        rows_by_method: the number of committed rows by method.
        method: the method of most rows.
    """

    result: StoreResult
    rows_by_table: Counter[str]
    rows_by_method: Counter[str]
    method: str

    def tell(self, measured: Measurement) -> None:
        """Set what is known of the operation that wrote the rows."""
        by_table = self.rows_by_table
        measured.table = max(by_table, key=by_table.__getitem__, default=None)
        measured.method = self.method
        measured.rows_by_table = by_table
        result = self.result
        measured.rows, measured.rejected = result.committed, len(result.rejected)
        measured.bytes, measured.retries = result.sent.count, result.retries

    @classmethod
    def of(cls, rows: Sequence[Row], result: StoreResult, method: Method) -> Written:
        """The result of these rows, which were written by `method`."""
        if result.rejected:
            refused = {one.index for one in result.rejected}
            rows = [row for index, row in enumerate(rows) if index not in refused]
        by_table = Counter([row.table for row in rows])
        by_method: Counter[str] = Counter()
        for number in by_table.values():
            by_method[chosen_method(method, number)] += number
        most = max(by_method, key=by_method.__getitem__, default=chosen_method(method, 0))
        return cls(result, by_table, by_method, most)


class Recorder:
    """Keeps the statistics of one writer. Callers must hold the buffer's lock.

    Attributes:
        counts: the plain counters.
    """

    def __init__(self) -> None:
        self.counts = WriteStats()
        self._began = time.monotonic()
        self._latencies: deque[float] = deque(maxlen=_LATEST_FLUSHES)
        # Rows committed in each second of the monotonic clock, where there were any.
        self._recent: deque[tuple[int, int]] = deque(maxlen=_RECENT_SECS)

    def committed(self, written: Written, seconds: float) -> None:
        """Record a batch and the seconds that it took."""
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

    @property
    def has_committed(self) -> bool:
        """Whether any rows were committed, also from the spool."""
        return self.counts.rows + self.counts.replayed > 0

    def stats(self) -> WriteStats:
        """A copy of the statistics."""
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
    """The nearest-rank percentile: the smallest value that this share of all does not exceed."""
    return ordered[math.ceil(len(ordered) * percent / 100) - 1] if ordered else 0.0
