"""A buffer that holds the rows of a trace until tail sampling has decided about the trace."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Final

from observatory_storage.rows import Row
from observatory_storage.tables import EVENTS, SPANS, TRACES
from observatory_storage.writers.batch_queue import Batch
from observatory_storage.writers.buffer import Bounds, Buffer
from observatory_storage.writers.stats import WriteStats
from observatory_storage.writers.tail_sampling import DROP, ends_local_root, with_weights
from observatory_storage.writers.trace_decisions import HeldRows, TraceDecisions

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


class SamplingBuffer(Buffer):
    """A buffer that holds the rows of a trace, and then takes or drops all of them.

    Undecided rows count towards the capacity of the buffer. Callers must hold its lock, which is
    that of the decisions.

    Args:
        bounds: what it holds.
        decisions: the decisions about traces, which other buffers may share.
        counts: where dropped rows are counted.
    """

    def __init__(self, bounds: Bounds, decisions: TraceDecisions, counts: WriteStats) -> None:
        super().__init__(bounds, decisions.lock)
        self._decisions = decisions
        self._counts = counts
        # The oldest first.
        self._held: OrderedDict[int, HeldRows] = OrderedDict()
        self._held_weight = 0

    @property
    def weight(self) -> int:
        """The number of rows in the buffer, events included, decided or not."""
        return super().weight + self._held_weight

    @property
    def weight_undecided(self) -> int:
        """The number of rows whose traces are not decided yet, events included."""
        return self._held_weight

    @property
    def waiting(self) -> bool:
        """Whether there are rows that no thread is writing."""
        return bool(self._held) or super().waiting

    @property
    def batches(self) -> int:
        """The number of batches; undecided rows need a thread too, which decides in time."""
        return super().batches + bool(self._held)

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
        if self._decisions.known(number) is None:
            self._make_room(weight, size)
        if (decision := self._decisions.recall(number)) is not None:
            if decision != DROP:
                return super().add(with_weights(number, (row,), decision)) > 0
            self._counts.sampled_out += 1
            return True
        if self.weight + weight > self._bounds.capacity and self.weight:
            return False
        held = self._held.get(number)
        if held is None:
            if not self._held:
                self.changed.notify_all()  # a thread waits until the trace is due
            held = self._held[number] = self._decisions.hold(number, self)
        held.rows.append(row)
        held.weight += weight
        held.size += size
        self._held_weight += weight
        self._decisions.weight += weight
        self._decisions.size += size
        if ends_local_root(row):
            self._decisions.decide(number)
        return True

    def _make_room(self, weight: int, size: int) -> None:
        """Decide the oldest traces while more is held than allowed."""
        decisions, sampling = self._decisions, self._decisions.sampling
        while (oldest := decisions.oldest) is not None:
            if (
                decisions.weight + weight <= sampling.max_undecided_rows
                and decisions.size + size <= sampling.max_undecided_bytes
            ):
                if not self._held or self.weight + weight <= self._bounds.capacity:
                    break
                oldest = next(iter(self._held))
            self._counts.decided_early += 1
            decisions.decide(oldest)

    def settle_trace(self, number: int, held: HeldRows, decision: int, *, is_first: bool) -> None:
        """Take or drop the rows of a trace that is decided; see `Holder`."""
        del self._held[number]
        self._held_weight -= held.weight
        if decision == DROP:
            self._counts.sampled_out += len(held.rows)
            self._counts.sampled_out_traces += is_first
            self.changed.notify_all()  # there is room
        else:
            # They fit: they were in the buffer before.
            super().add(with_weights(number, held.rows, decision))

    def is_dropped(self, trace_number: int) -> bool:
        """Whether a trace is known to be dropped."""
        return self._decisions.known(trace_number) == DROP

    def seal_when_due(self, interval_secs: float, waits: list[float]) -> None:
        """Decide what is due, so that it is sealed in time; see `Buffer.seal_when_due`."""
        self._decisions.decide_due([])
        super().seal_when_due(interval_secs, waits)

    def take(self, waits: list[float]) -> Batch | None:
        """Decide what is due, and take a batch to write now; see `Buffer.take`."""
        self._decisions.decide_due(waits)
        return super().take(waits)

    def decide_all(self) -> None:
        """Decide all traces of this buffer with what is known; see `Buffer.decide_all`."""
        with self.lock:
            numbers = list(self._held)
        self._decisions.decide_in_turns(numbers)

    def seal_all(self) -> list[tuple[Batch, int]]:
        """Decide about the traces of this buffer with what is known, and seal all batches."""
        for number in list(self._held):
            self._decisions.decide(number)
        return super().seal_all()

    def newest_first(self) -> Iterator[Row]:
        """All rows; of each trace, the newest first."""
        for held in reversed(self._held.values()):
            yield from reversed(held.rows)
        yield from super().newest_first()


def _size_of(row: Row) -> int:
    size = _BYTES_OF_ROW + len(row.values[_ATTRIBUTES[row.table]])
    if row.events:
        for event in row.events:
            size += _BYTES_OF_ROW + len(event[_OF_EVENT])
    return size
