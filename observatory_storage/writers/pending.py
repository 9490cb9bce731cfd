"""Batches that wait to be written, in the order in which their rows came."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

from observatory_storage.errors import StorageError
from observatory_storage.rows import Row

__all__ = ["Batch", "Queue"]


class Batch:
    """Rows on their way to one transaction.

    Attributes:
        number: its place in the order in which rows were written.
        weight: its rows, events included.
        tries: how many tries to write it have failed, the last one with `error`.
        not_before: when it may be tried again, on the monotonic clock.
        done: all rows are committed, refused for their data, or spooled.
    """

    __slots__ = ("done", "error", "not_before", "number", "rows", "tries", "weight")

    def __init__(self, number: int) -> None:
        self.number = number
        self.rows: list[Row] = []
        self.weight = 0
        self.tries = 0
        self.not_before = 0.0
        self.done = False
        self.error: StorageError | None = None

    def failed(self, error: StorageError, delay_secs: float) -> None:
        """Note a failed try, and when there may be another."""
        self.tries += 1
        self.error = error
        self.not_before = time.monotonic() + delay_secs


class Queue:
    """Batches in their order; not thread-safe by itself."""

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)

    def add(self, batch: Batch) -> None:
        """Put a batch in its place: one that failed goes before those that came after it."""
        at = sum(other.number < batch.number for other in self._batches)
        self._batches.insert(at, batch)

    def discard(self, batch: Batch) -> None:
        """Take a batch out, if it is there."""
        if batch in self._batches:
            self._batches.remove(batch)

    def hurry(self) -> None:
        """Let every batch be tried at once."""
        for batch in self._batches:
            batch.not_before = 0.0

    def take(self, waits: list[float]) -> Batch | None:
        """The first batch that may be tried now; adds to `waits` how long those before it have to.

        A batch overtakes another only where the other's trouble is its own. While the database is
        away all keep their places: the last version of a row must be the last one written.
        """
        now = time.monotonic()
        for batch in self._batches:
            if batch.not_before <= now:
                self._batches.remove(batch)
                return batch
            waits.append(batch.not_before - now)
            if batch.error is not None and batch.error.retryable:
                break
        return None
