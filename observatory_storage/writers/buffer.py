"""The buffer: rows that are neither committed nor spooled yet.

A row is in exactly one place: the open batch, the queue, or a batch that is being written. It
leaves the buffer only when its commit is confirmed, when the database has refused it for its data,
or when the spool has it on disk. A batch that could not be written returns to its place in the
queue. With tail sampling, rows are held before (`SamplingBuffer`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from observatory_storage.errors import StorageError
from observatory_storage.rows import Row
from observatory_storage.writers.batch_queue import Batch, Queue

__all__ = ["Bounds", "Buffer"]

# While no flush is running, one starts at this many rows, even if the batch is not full.
_WORTH_WRITING: Final = 1000


class Bounds(NamedTuple):
    """What a buffer and its batches hold.

    Attributes:
        batch: the weight at which a batch is full.
        largest_batch: the weight at which it is full while nobody could write it.
        at_once: how many batches are written at the same time.
        capacity: the maximum weight of the buffer.
    """

    batch: int
    largest_batch: int
    at_once: int
    capacity: int


class Buffer:
    """The rows of one writer. Callers must hold its lock for every method.

    Args:
        bounds: what it holds.
        lock: a lock to share with other buffers; None for a lock of its own.

    Attributes:
        lock: guards the buffer; reentrant.
        changed: notified of every change that a thread may wait for.
        closed: the writer takes no more rows.
    """

    def __init__(self, bounds: Bounds, lock: threading.RLock | None = None) -> None:
        self.lock = threading.RLock() if lock is None else lock
        self.changed = threading.Condition(self.lock)
        self.closed = False
        self._bounds = bounds
        self._open = Batch(0)
        self._opened_at = 0.0
        self._queue = Queue()
        self._running: set[Batch] = set()
        self._sealed = 0  # what the queue and the running batches weigh

    @property
    def weight(self) -> int:
        """The number of rows in the buffer, events included."""
        return self._sealed + self._open.weight

    @property
    def weight_running(self) -> int:
        """The number of these rows that are being written."""
        return sum(batch.weight for batch in self._running)

    @property
    def weight_undecided(self) -> int:
        """The number of these rows that tail sampling holds."""
        return 0

    @property
    def waiting(self) -> bool:
        """Whether there are rows that no thread is writing."""
        return bool(self._open.rows or self._queue)

    @property
    def batches(self) -> int:
        """The number of batches, including the open batch if it has rows."""
        return len(self._queue) + len(self._running) + bool(self._open.rows)

    def add(self, rows: Sequence[Row], start: int = 0) -> int:
        """Add rows from index `start` on; return the index of the first row that does not fit.

        A row that is heavier than the whole buffer is taken into an empty buffer.
        """
        batch, index = self._open, start
        weight, full = self.weight, self._full
        for row in rows[start:] if start else rows:
            row_weight = 1 + len(row.events) if row.events else 1
            if weight + row_weight > self._bounds.capacity and weight:
                break
            if batch.weight + row_weight > full:
                batch, full = self.seal(), self._full
            if not batch.rows:
                self._opened_at = time.monotonic()
                self.changed.notify_all()
            batch.rows.append(row)
            batch.weight += row_weight
            weight += row_weight
            index += 1
            if batch.weight >= full:
                batch, full = self.seal(), self._full
        self._seal_when_idle()
        return index

    def seal(self) -> Batch:
        """Put the open batch into the queue, if it has rows; return the new open batch."""
        batch = self._open
        if batch.rows:
            self._open = Batch(batch.number + 1)
            self._sealed += batch.weight
            self._queue.add(batch)
            self.changed.notify_all()
        return self._open

    def seal_when_due(self, interval_secs: float, waits: list[float]) -> None:
        """Seal the open batch if it is due; else add the time until it is due to `waits`."""
        if self._open.rows:
            left = self._opened_at + interval_secs - time.monotonic()
            if left <= 0:
                self.seal()
            else:
                waits.append(left)

    def decide_all(self) -> None:
        """Let tail sampling decide about all rows. Callers need not hold the lock.

        `seal_all` decides as well, but without letting other threads write meanwhile.
        """

    def seal_all(self) -> list[tuple[Batch, int]]:
        """Seal all batches with rows; return each with the number of attempts that began so far.

        They may be tried immediately. A running attempt is counted, because it may fail for a
        reason that has passed since.
        """
        self.seal()
        self._queue.hurry()
        self.changed.notify_all()
        return [(batch, batch.tries + (batch in self._running)) for batch in self.held()]

    def take(self, waits: list[float]) -> Batch | None:
        """Take a batch to write now (see `Queue.take`), to be settled or put back afterwards."""
        self._seal_when_idle()
        batch = self._queue.take(waits, self._running)
        if batch is not None:
            self._running.add(batch)
        return batch

    def _seal_when_idle(self) -> None:
        if self._open.weight >= min(_WORTH_WRITING, self._bounds.batch) and not self._sealed:
            self.seal()

    @property
    def _full(self) -> int:
        """The weight at which the open batch is full."""
        is_busy = len(self._queue) + len(self._running) >= self._bounds.at_once
        return self._bounds.largest_batch if is_busy else self._bounds.batch

    def hurry(self, batch: Batch) -> None:
        """Let the batch be tried immediately, if it waits for another attempt."""
        if batch.not_before and batch not in self._running:
            batch.not_before = 0.0
            self.changed.notify_all()

    def settle(self, batch: Batch) -> None:
        """Remove a batch that is done, wherever it is."""
        if batch in self._running:
            self._running.remove(batch)
        else:
            self._queue.discard(batch)
        if not batch.done:
            batch.done = True
            self._sealed -= batch.weight
        self.changed.notify_all()

    def put_back(self, batch: Batch, error: StorageError, delay_secs: float) -> None:
        """Return a batch that could not be written to its place in the queue."""
        self._running.discard(batch)
        if not batch.done:
            batch.failed(error, delay_secs)
            self._queue.add(batch)
        self.changed.notify_all()

    def held(self) -> list[Batch]:
        """The sealed batches, in their order."""
        return sorted((*self._running, *self._queue), key=lambda batch: batch.number)

    def is_dropped(self, trace_number: int) -> bool:
        """Whether tail sampling is known to have dropped a trace."""
        return False

    def newest_first(self) -> Iterator[Row]:
        """All rows, the newest first."""
        for batch in reversed((*self.held(), self._open)):
            yield from reversed(batch.rows)
