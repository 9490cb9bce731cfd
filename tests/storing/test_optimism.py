"""Loading without a merge is given up for a while when it does not pay, and tried again later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from observatory_storage import CopyWriter, StoragePool
from observatory_storage.storing.optimism import Optimism, optimism


def test_three_conflicts_in_a_row_suspend_optimism() -> None:
    optimistic = Optimism()
    for clean in (False, False, True, False, False):
        assert optimistic.allows()
        optimistic.learn(clean=clean)
    assert optimistic.allows()
    optimistic.learn(clean=False)
    refused = 0
    while not optimistic.allows():
        refused += 1
    assert refused > 10
    optimistic.learn(clean=False)
    assert not optimistic.allows(), "one more conflict is enough after that"


def test_a_batch_without_conflict_restores_optimism() -> None:
    optimistic = Optimism()
    for _ in range(3):
        optimistic.learn(clean=False)
    while not optimistic.allows():
        pass
    optimistic.learn(clean=True)
    for _ in range(2):
        optimistic.learn(clean=False)
        assert optimistic.allows()


def test_a_batch_written_again_and_again_is_merged_directly(pool: StoragePool) -> None:
    start = datetime.now(UTC)
    spans = [
        {
            "trace_id": "ab" * 16,
            "span_id": f"{at + 1:016x}",
            "name": "work",
            "start_time": start + timedelta(milliseconds=at),
        }
        for at in range(20)
    ]
    writer = CopyWriter(pool)
    for _ in range(4):
        writer.write_spans(spans)
    with pool.engine.connect() as connection:
        assert not optimism(connection, "stage_trace_spans").allows()
    writer.write_spans([{**span, "name": "other work"} for span in spans])
    with pool.unit_of_work() as uow:
        assert {span.name for span in uow.traces.get_spans("ab" * 16)} == {"other work"}
        assert uow.traces.get_by_trace_id("ab" * 16).span_count == 20
