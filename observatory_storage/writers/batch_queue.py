"""Batches that wait to be written, in the order in which their rows came."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Hashable, Iterable, Iterator

from observatory_storage.errors import StorageError
from observatory_storage.rows import Row
from observatory_storage.tables import table_named

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
        """Note a failed try, and when there may be another."""
        self.tries += 1
        self.error = error
        self.not_before = time.monotonic() + delay_secs

    def shares_rows_with(self, others: Iterable[Batch]) -> bool:
        """Whether it may have another version of a row of theirs, by the tables' version keys.

        Only for a sealed batch.
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
        """Insert a batch in the order of numbers: one that failed goes before later ones."""
        index = len(self._batches)
        while index and self._batches[index - 1].number > batch.number:
            index -= 1
        self._batches.insert(index, batch)

    def discard(self, batch: Batch) -> None:
        """Take a batch out, if it is there."""
        if batch in self._batches:
            self._batches.remove(batch)

    def hurry(self) -> None:
        """Let every batch be tried at once."""
        for batch in self._batches:
            batch.not_before = 0.0

    def take(self, waits: list[float], running: Collection[Batch] = ()) -> Batch | None:
        """The first batch that may be tried now; adds to `waits` how long those before it have to.

        The last version of a row must be written last. So a batch overtakes another, or runs
        beside one, only if they have no row in common. While the database is away, no batch
        overtakes another.
        """
        now = time.monotonic()
        before = list(running)
        for batch in self._batches:
            if batch.not_before > now:
                waits.append(batch.not_before - now)
                if batch.error is not None and batch.error.retryable:
                    break
            elif not (before and batch.shares_rows_with(before)):
                self._batches.remove(batch)
                return batch
            before.append(batch)
        return None
