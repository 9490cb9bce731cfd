"""Pins of traces."""

from __future__ import annotations

import pytest

from observatory_storage.errors import NotFound, ValidationError
from observatory_storage.pool import StoragePool
from observatory_storage.writers import TraceWriter
from tests.writers.helpers import a_span, trace_id


@pytest.fixture(autouse=True)
def _three_traces(pool: StoragePool) -> None:
    with TraceWriter(pool) as writer:
        writer.write_spans([a_span(number) for number in (1, 2, 3)])


def pins(pool: StoragePool) -> list[tuple[str, str | None]]:
    with pool.unit_of_work() as work:
        return [(pin.trace_id, pin.reason) for pin in work.traces.pinned()]


def test_pins_are_listed_in_the_order_in_which_they_were_set(pool: StoragePool) -> None:
    for number, reason in ((2, "an incident"), (1, None)):
        with pool.unit_of_work() as work:
            work.traces.pin(trace_id(number), reason)
            work.commit()
    assert pins(pool) == [(trace_id(2), "an incident"), (trace_id(1), None)]


def test_pinning_again_replaces_the_reason(pool: StoragePool) -> None:
    with pool.unit_of_work() as work:
        work.traces.pin(trace_id(1), "first")
        work.traces.pin(work.traces.get_by_trace_id(trace_id(1)), "second")
        work.commit()
    assert pins(pool) == [(trace_id(1), "second")]


def test_a_pin_is_removed(pool: StoragePool) -> None:
    with pool.unit_of_work() as work:
        work.traces.pin(trace_id(1))
        work.traces.unpin(trace_id(1))
        with pytest.raises(NotFound, match="is not pinned"):
            work.traces.unpin(trace_id(1))
        work.commit()
    assert pins(pool) == []


def test_only_a_stored_trace_can_be_pinned(pool: StoragePool) -> None:
    with pool.unit_of_work() as work:
        with pytest.raises(NotFound, match=f"there is no trace {trace_id(9)}"):
            work.traces.pin(trace_id(9))
        with pytest.raises(ValidationError, match="reason=7: must be text"):
            work.traces.pin(trace_id(1), 7)  # type: ignore[arg-type]  # it is refused


def test_a_deleted_trace_loses_its_pin(pool: StoragePool) -> None:
    with TraceWriter(pool) as writer:
        writer.write_span(a_span(4, user_id="somebody"))
    with pool.unit_of_work() as work:
        for number in (1, 2, 4):
            work.traces.pin(trace_id(number))
        work.traces.delete(trace_id(1))
        work.traces.delete_user("somebody")
        work.commit()
    assert pins(pool) == [(trace_id(2), None)]
