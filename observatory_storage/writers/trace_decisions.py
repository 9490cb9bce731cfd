"""The decisions of tail sampling that all writers of a pool share."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice
from typing import Final, Protocol
from weakref import WeakKeyDictionary

from observatory_storage.pricing import PriceTable
from observatory_storage.rows import Row
from observatory_storage.storing import Source
from observatory_storage.writers.tail_sampling import Decider, TailSampling

__all__ = ["HeldRows", "Holder", "TraceDecisions", "decisions_of"]

# More decisions than these are made in turns, and other threads write between them.
_TURN: Final = 256
_PAUSE_SECS: Final = 0.0001


class Holder(Protocol):
    """A buffer that holds rows of undecided traces."""

    def settle_trace(self, number: int, held: HeldRows, decision: int, *, is_first: bool) -> None:
        """Take or drop the rows of a trace.

        Args:
            number: the id of the trace as an integer.
            held: its rows in this buffer.
            decision: the decision about the trace.
            is_first: whether this is the first buffer that had rows of it.
        """


class HeldRows:
    """The rows of an undecided trace in one buffer.

    Attributes:
        holder: the buffer.
        rows: the rows.
        weight: their number, events included.
        size: about as many bytes as they need.
    """

    __slots__ = ("holder", "rows", "size", "weight")

    def __init__(self, holder: Holder) -> None:
        self.holder = holder
        self.rows: list[Row] = []
        self.weight = self.size = 0


class _Trace:
    """What all buffers hold of an undecided trace, and the time when its first row came."""

    __slots__ = ("held", "since")

    def __init__(self) -> None:
        self.held: list[HeldRows] = []
        self.since = time.monotonic()


class TraceDecisions:
    """Undecided traces and the decisions about the latest others, of all writers that share them.

    A trace may have spans in several writers, such as that of an exporter and that of
    `observe_llm`. It is decided once, by the spans of all of them.

    Callers must hold its lock, which is that of the buffers as well: so no order of locks can be
    wrong.

    Args:
        sampling: the bounds of what is held and remembered.
        decider: decides about traces.

    Attributes:
        lock: guards this object and the buffers; reentrant.
        sampling: as given.
        weight: the number of rows that all buffers hold, events included.
        size: about as many bytes as they need.
    """

    def __init__(self, sampling: TailSampling, decider: Decider) -> None:
        self.lock = threading.RLock()
        self.sampling = sampling
        self.weight = self.size = 0
        self._decider = decider
        # The oldest first; an OrderedDict finds its first key fast after others were removed.
        # The keys are the integers of the trace ids: a UUID is hashed in Python.
        self._undecided: OrderedDict[int, _Trace] = OrderedDict()
        # The one that was asked for last is at the end.
        self._decisions: OrderedDict[int, int] = OrderedDict()

    def known(self, number: int) -> int | None:
        """The decision about a trace; None if there is none, or it is forgotten."""
        return self._decisions.get(number)

    def recall(self, number: int) -> int | None:
        """The same; the decision is remembered for longer."""
        decision = self._decisions.get(number)
        if decision is not None:
            self._decisions.move_to_end(number)
        return decision

    @property
    def oldest(self) -> int | None:
        """The undecided trace whose first row came first."""
        return next(iter(self._undecided), None)

    def hold(self, number: int, holder: Holder) -> HeldRows:
        """A new place for rows of a trace, if the buffer holds none of it yet."""
        trace = self._undecided.get(number)
        if trace is None:
            trace = self._undecided[number] = _Trace()
        held = HeldRows(holder)
        trace.held.append(held)
        return held

    def decide(self, number: int) -> None:
        """Decide about a trace; all buffers take or drop their rows of it."""
        held = self._undecided[number].held
        rows: Sequence[Row] = (
            held[0].rows if len(held) == 1 else [row for each in held for row in each.rows]
        )
        decision = self._decider.decide(number, rows)
        del self._undecided[number]
        self._decisions[number] = decision
        if len(self._decisions) > self.sampling.remembered_traces:
            self._decisions.popitem(last=False)
        for each in held:
            self.weight -= each.weight
            self.size -= each.size
            each.holder.settle_trace(number, each, decision, is_first=each is held[0])

    def decide_due(self, waits: list[float]) -> None:
        """Decide traces that have waited long enough, as many as a turn allows.

        Args:
            waits: gets the seconds until the next turn.
        """
        due: list[int] = []
        for number, trace in islice(self._undecided.items(), _TURN):
            left = trace.since + self.sampling.decision_wait_secs - time.monotonic()
            if left > 0:
                waits.append(left)
                break
            due.append(number)
        for number in due:
            self.decide(number)
        if due:  # batches may have got rows, and further traces may be due
            waits.append(_PAUSE_SECS)

    def decide_in_turns(self, numbers: Sequence[int]) -> None:
        """Decide those of the traces that are undecided. Callers must not hold the lock.

        Other threads can write meanwhile.
        """
        for start in range(0, len(numbers), _TURN):
            if start:
                time.sleep(_PAUSE_SECS)  # a thread that waits for the lock gets it
            with self.lock:
                for number in numbers[start : start + _TURN]:
                    if number in self._undecided:
                        self.decide(number)


_Shared = dict[tuple[int, TailSampling], TraceDecisions]
_shared: Final[WeakKeyDictionary[Source, _Shared]] = WeakKeyDictionary()


def decisions_of(source: Source, sampling: TailSampling) -> TraceDecisions:
    """The decisions of all writers of a pool in this process that sample with these settings."""
    # `setdefault` is atomic. A child has other locks than its parent, whose threads it lacks.
    shared = _shared.setdefault(source, {})
    key = os.getpid(), sampling
    found = shared.get(key)
    if found is None:
        found = shared.setdefault(key, TraceDecisions(sampling, _decider(source, sampling)))
    return found


def _decider(source: Source, sampling: TailSampling) -> Decider:
    # The prices know their pool: to keep them here would keep the pool for ever.
    pool = weakref.proxy(source)

    def known_prices() -> tuple[bool, PriceTable | None]:
        known: tuple[bool, PriceTable | None] = pool.prices.known()
        return known

    return Decider(sampling, known_prices)
