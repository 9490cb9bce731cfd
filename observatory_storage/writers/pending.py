"""Batches that wait to be written, in the order in which their rows came."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from operator import itemgetter
from typing import Final

from observatory_storage.errors import StorageError
from observatory_storage.rows import COLUMNS, Row
from observatory_storage.writers.tables import Values

__all__ = ["Batch", "Queue"]

# What tells a table's rows apart, with less work than their keys: where two rows have it in
# common, the one written last must come last. An event goes with its span.
_TOLD_APART_BY: Final = {
    "traces": ("id",),
    "trace_spans": ("span_id",),
    "trace_events": ("span_id",),
    "metrics": ("id",),
    "metric_data_points": ("metric_id", "timestamp", "id"),
    "logs": ("id",),
}
_KEY_OF: Final[dict[str, Callable[[Values], Hashable]]] = {
    table: itemgetter(*(COLUMNS[table].index(column) for column in columns))
    for table, columns in _TOLD_APART_BY.items()
}


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

    def meets(self, others: Iterable[Batch]) -> bool:
        """Whether it may have another version of a row of theirs; to be asked once it is sealed."""
        return any(not self._known_keys().isdisjoint(other._known_keys()) for other in others)

    def _known_keys(self) -> frozenset[Hashable]:
        if self._keys is None:
            self._keys = frozenset([_KEY_OF[row.table](row.values) for row in self.rows])
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
        """Put a batch in its place: one that failed goes before those that came after it."""
        at = len(self._batches)
        while at and self._batches[at - 1].number > batch.number:
            at -= 1
        self._batches.insert(at, batch)

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

        The last version of a row must be the last one written. So a batch overtakes another, or
        goes beside one that is `running`, only where they have no row in common; and while the
        database is away all keep their places.
        """
        now = time.monotonic()
        before = list(running)
        for batch in self._batches:
            if batch.not_before > now:
                waits.append(batch.not_before - now)
                if batch.error is not None and batch.error.retryable:
                    break
            elif not (before and batch.meets(before)):
                self._batches.remove(batch)
                return batch
            before.append(batch)
        return None
