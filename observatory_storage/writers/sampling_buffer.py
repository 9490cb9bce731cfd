"""A buffer that holds the rows of a trace until tail sampling has decided about the trace."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Final

from observatory_storage.rows import Row
from observatory_storage.tables import EVENTS, SPANS, TRACES
from observatory_storage.writers.batch_queue import Batch
from observatory_storage.writers.buffer import Buffer
from observatory_storage.writers.stats import WriteStats
from observatory_storage.writers.tail_sampling import (
    DROP,
    Decider,
    TailSampling,
    ends_local_root,
    with_weights,
)

__all__ = ["SamplingBuffer"]

_TRACE_ID: Final = {
    TRACES.name: TRACES.position["id"],
    SPANS.name: SPANS.position["trace_id"],
    EVENTS.name: EVENTS.position["trace_id"],
}
_ATTRIBUTES: Final = {table.name: table.position["attributes"] for table in (TRACES, SPANS, EVENTS)}
_OF_EVENT: Final = _ATTRIBUTES[EVENTS.name]
# What a row needs beside its attributes, about.
_BYTES_OF_ROW: Final = 2_000


class _Trace:
    """The rows of an undecided trace, and the time when the first of them came."""

    __slots__ = ("rows", "since", "size", "weight")

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.since = time.monotonic()
        self.weight = self.size = 0


class SamplingBuffer(Buffer):
    """A buffer that holds the rows of a trace, and then takes or drops all of them.

    Undecided rows count towards the capacity of the buffer. Callers must hold its lock.

    Args:
        batch_size: the weight at which a batch is full.
        capacity: the maximum weight of the buffer.
        sampling: the bounds of what is held and remembered.
        decider: decides about traces.
        counts: where dropped rows are counted.
    """

    def __init__(
        self,
        batch_size: int,
        capacity: int,
        sampling: TailSampling,
        decider: Decider,
        counts: WriteStats,
    ) -> None:
        super().__init__(batch_size, capacity)
        self._sampling = sampling
        self._decider = decider
        self._counts = counts
        # The oldest first. The keys are the integers of the trace ids: a UUID is hashed in Python.
        self._undecided: dict[int, _Trace] = {}
        self._undecided_weight = self._undecided_bytes = 0
        # The decisions about the latest traces, the one that was asked for last at the end.
        self._decisions: OrderedDict[int, int] = OrderedDict()

    @property
    def weight(self) -> int:
        """The number of rows in the buffer, events included, decided or not."""
        return super().weight + self._undecided_weight

    @property
    def weight_undecided(self) -> int:
        """The number of rows whose traces are not decided yet, events included."""
        return self._undecided_weight

    @property
    def waiting(self) -> bool:
        """Whether there are rows that no thread is writing."""
        return bool(self._undecided) or super().waiting

    @property
    def batches(self) -> int:
        """The number of batches; undecided rows need a thread too, which decides in time."""
        return super().batches + bool(self._undecided)

    def add(self, rows: Sequence[Row], start: int = 0) -> int:
        """Hold rows from index `start` on, add them, or drop them, as their traces are decided.

        Returns the index of the first row that does not fit.
        """
        for index in range(start, len(rows)):
            if not self._add_one(rows[index]):
                return index
        return len(rows)

    def _add_one(self, row: Row) -> bool:
        number: int = row.values[_TRACE_ID[row.table]].int
        weight = 1 + len(row.events) if row.events else 1
        size = _size_of(row)
        if number not in self._decisions:
            self._make_room(weight, size)
        if (decision := self._decisions.get(number)) is not None:
            self._decisions.move_to_end(number)
            if decision != DROP:
                return super().add(with_weights(number, (row,), decision)) > 0
            self._counts.sampled_out += 1
            return True
        if self.weight + weight > self._capacity and self.weight:
            return False
        trace = self._undecided.get(number)
        if trace is None:
            if not self._undecided:
                self.changed.notify_all()  # a thread waits until the trace is due
            trace = self._undecided[number] = _Trace()
        trace.rows.append(row)
        trace.weight += weight
        trace.size += size
        self._undecided_weight += weight
        self._undecided_bytes += size
        if ends_local_root(row):
            self._decide(number)
        return True

    def _make_room(self, weight: int, size: int) -> None:
        """Decide the oldest traces while more is held than allowed."""
        most_rows, most_bytes = (
            self._sampling.max_undecided_rows,
            self._sampling.max_undecided_bytes,
        )
        while self._undecided and (
            self._undecided_weight + weight > most_rows
            or self._undecided_bytes + size > most_bytes
            or self.weight + weight > self._capacity
        ):
            self._counts.decided_early += 1
            self._decide(next(iter(self._undecided)))

    def _decide(self, number: int) -> None:
        """Decide about a trace, and add or drop its rows."""
        trace = self._undecided[number]
        decision = self._decider.decide(number, trace.rows)
        del self._undecided[number]
        self._undecided_weight -= trace.weight
        self._undecided_bytes -= trace.size
        self._decisions[number] = decision
        if len(self._decisions) > self._sampling.remembered_traces:
            self._decisions.popitem(last=False)
        if decision == DROP:
            self._counts.sampled_out += len(trace.rows)
            self._counts.sampled_out_traces += 1
            self.changed.notify_all()  # there is room
        else:
            # They fit: they were in the buffer before.
            super().add(with_weights(number, trace.rows, decision))

    def _decide_due(self, waits: list[float]) -> bool:
        """Decide the traces that have waited long enough; whether there were any."""
        found = False
        wait_secs = self._sampling.decision_wait_secs
        for number, trace in list(self._undecided.items()):
            left = trace.since + wait_secs - time.monotonic()
            if left > 0:
                waits.append(left)
                break
            self._decide(number)
            found = True
        return found

    def is_dropped(self, trace_number: int) -> bool:
        """Whether a trace is known to be dropped."""
        return self._decisions.get(trace_number) == DROP

    def seal_when_due(self, interval_secs: float, waits: list[float]) -> None:
        """Decide what is due, so that it is sealed in time; see `Buffer.seal_when_due`."""
        self._decide_due([])
        super().seal_when_due(interval_secs, waits)

    def take(self, waits: list[float]) -> Batch | None:
        """Decide what is due, and take a batch to write now; see `Buffer.take`."""
        if self._decide_due(waits):
            waits.append(0.0)  # the open batch may have got its first rows: look when it is due
        return super().take(waits)

    def seal_all(self) -> list[tuple[Batch, int]]:
        """Decide about all traces with what is known of them, and seal all batches."""
        for number in list(self._undecided):
            self._decide(number)
        return super().seal_all()

    def newest_first(self) -> Iterator[Row]:
        """All rows; of each trace, the newest first."""
        for trace in reversed(self._undecided.values()):
            yield from reversed(trace.rows)
        yield from super().newest_first()


def _size_of(row: Row) -> int:
    size = _BYTES_OF_ROW + len(row.values[_ATTRIBUTES[row.table]])
    if row.events:
        for event in row.events:
            size += _BYTES_OF_ROW + len(event[_OF_EVENT])
    return size
