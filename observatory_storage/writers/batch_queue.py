"""Batches that wait to be written, in the order in which their rows arrived."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Hashable, Iterable, Iterator

from observatory_storage.errors import StorageError, is_outage
from observatory_storage.rows import Row
from observatory_storage.tables import table_named

__all__ = ["Batch", "Queue"]


class Batch:
    """Rows on their way to one transaction.

    Attributes:
        number: its place in the order in which rows were written.
        weight: the number of its rows, events included.
        tries: the number of failed attempts to write it; `error` is the error of the last one.
        not_before: the time of the next attempt, on the monotonic clock.
        done: whether all rows are committed, refused for their data, or spooled.
    """

    __slots__ = ("_keys", "done", "error", "not_before", "number", "rows", "tries", "weight")

    def __init__(self, number: int) -> None:
        self.number = number
        self.rows: list[Row] = []
        self.weight = 0
        self.tries = 0
        self.not_before = 0.0
        self.done = False
        self.error: StorageError | None = None
        self._keys: frozenset[Hashable] | None = None

    def failed(self, error: StorageError, delay_secs: float) -> None:
        """Record a failed attempt, and the time of the next one."""
        self.tries += 1
        self.error = error
        self.not_before = time.monotonic() + delay_secs

    def shares_rows_with(self, others: Iterable[Batch]) -> bool:
        """Whether this batch may contain another version of a row of the other batches.

        The batch must be sealed.
        """
        return any(not self._known_keys().isdisjoint(other._known_keys()) for other in others)

    def _known_keys(self) -> frozenset[Hashable]:
        if self._keys is None:
            self._keys = frozenset(
                [table_named(row.table).version_of(row.values) for row in self.rows]
            )
        return self._keys


class Queue:
    """Batches in their order; not thread-safe by itself."""

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches)

    def add(self, batch: Batch) -> None:
        """Insert a batch in the order of numbers: a batch that failed precedes later ones."""
        index = len(self._batches)
        while index and self._batches[index - 1].number > batch.number:
            index -= 1
        self._batches.insert(index, batch)

    def discard(self, batch: Batch) -> None:
        """Take a batch out, if it is there."""
        if batch in self._batches:
            self._batches.remove(batch)

    def hurry(self) -> None:
        """Let every batch be tried immediately."""
        for batch in self._batches:
            batch.not_before = 0.0

    def take(self, waits: list[float], running: Collection[Batch] = ()) -> Batch | None:
        """The first batch that may be tried now. Adds the waiting times of earlier ones to `waits`.

        The last version of a row must be written last. So a batch overtakes another batch, or runs
        in parallel with it, only if they have no row in common. While the database is away, no
        batch overtakes another.
        """
        now = time.monotonic()
        before = list(running)
        for batch in self._batches:
            if batch.not_before > now:
                waits.append(batch.not_before - now)
                if batch.error is not None and is_outage(batch.error):
                    break
            elif not (before and batch.shares_rows_with(before)):
                self._batches.remove(batch)
                return batch
            before.append(batch)
        return None
