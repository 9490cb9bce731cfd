"""The optimistic way is left for a while when it does not pay, and tried again later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from observatory_storage import CopyWriter, StoragePool
from observatory_storage.writers.optimism import Optimism, optimism


def test_three_conflicts_in_a_row_end_it_for_a_while() -> None:
    hope = Optimism()
    for clean in (False, False, True, False, False):
        assert hope.allows()
        hope.learn(clean=clean)
    assert hope.allows()
    hope.learn(clean=False)
    refused = 0
    while not hope.allows():
        refused += 1
    assert refused > 10
    hope.learn(clean=False)
    assert not hope.allows(), "one more conflict is enough after that"


def test_a_clean_batch_restores_it() -> None:
    hope = Optimism()
    for _ in range(3):
        hope.learn(clean=False)
    while not hope.allows():
        pass
    hope.learn(clean=True)
    for _ in range(2):
        hope.learn(clean=False)
        assert hope.allows()


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
