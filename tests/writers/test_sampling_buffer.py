"""Whatever a buffer with sampling is given, each row is in one place, and traces stay whole."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from observatory_storage.rows import Row, prepare_event, prepare_span, prepare_trace
from observatory_storage.rows.consistent_sampling import ALL
from observatory_storage.tables import EVENTS, SPANS, TRACES
from observatory_storage.writers.buffer import Bounds
from observatory_storage.writers.sampling_buffer import SamplingBuffer
from observatory_storage.writers.stats import Recorder
from observatory_storage.writers.tail_sampling import Decider, TailSampling
from observatory_storage.writers.trace_decisions import TraceDecisions
from tests.writers.helpers import a_span, a_trace, an_event, event, span_id

CAPACITY = 12
_ID = {
    TRACES.name: TRACES.position["id"],
    SPANS.name: SPANS.position["trace_id"],
    EVENTS.name: EVENTS.position["trace_id"],
}

# A trace of which one in two has a random number that is kept, and what is written of it.
_TRACES = st.integers(1, 6).map(lambda number: number + number % 2 * ALL // 2)
_KINDS = st.sampled_from(["child", "root", "failed", "events", "event", "trace", "flush", "write"])


def a_row(kind: str, trace: int, number: int) -> Row:
    if kind == "trace":
        return prepare_trace(a_trace(trace))
    if kind == "event":
        return prepare_event(an_event(trace, 1, number))
    columns: dict[str, Any] = {"parent_span_id": span_id(99_999)}
    if kind == "root":
        columns = {}
    elif kind == "failed":
        columns["status"] = "error"
    elif kind == "events":
        columns["events"] = [event("e")] * 3
    return prepare_span(a_span(trace, number, **columns))


@given(
    steps=st.lists(st.tuples(_KINDS, _TRACES), max_size=60),
    most_rows=st.integers(1, CAPACITY),
)
def test_rows_are_held_written_or_dropped_with_their_trace(
    steps: list[tuple[str, int]], most_rows: int
) -> None:
    sampling = TailSampling(share=0.5, max_undecided_rows=most_rows)
    counts = Recorder().counts
    decider = Decider(sampling, lambda: (True, None))
    buffer = SamplingBuffer(Bounds(4, 4, 1, CAPACITY), TraceDecisions(sampling, decider), counts)
    buffer.lock.acquire()  # as writers do; it ends with the buffer
    given_rows: dict[int, int] = defaultdict(int)
    written: dict[int, int] = defaultdict(int)

    def write() -> None:
        buffer.seal_all()
        while (batch := buffer.take([])) is not None:
            for row in batch.rows:
                written[row.values[_ID[row.table]].int] += 1
            buffer.settle(batch)

    for number, (kind, trace) in enumerate(steps, start=1):
        if kind == "flush":
            buffer.seal_all()
            assert buffer.weight_undecided == 0
        elif kind == "write":
            write()
            assert buffer.weight == 0
        elif buffer.add([a_row(kind, trace, number)]):
            given_rows[trace] += 1
        else:
            assert buffer.weight + 4 > CAPACITY  # there is no room
        assert buffer.weight <= CAPACITY
        assert buffer.weight_undecided <= max(most_rows, 4)  # a span and its events
    write()
    assert not buffer.waiting
    for trace, count in given_rows.items():
        assert written[trace] in {0, count}
        assert (written[trace] == 0) == buffer.is_dropped(trace)
    assert sum(given_rows.values()) == sum(written.values()) + counts.sampled_out
    assert counts.sampled_out_traces == sum(map(buffer.is_dropped, given_rows))
