"""Arrow has whole values, also if they are stored in payload frames."""

from __future__ import annotations

import logging

import pytest
import sqlalchemy as sa

from observatory_storage import StoragePool
from observatory_storage.models import PayloadFrame, TraceEvent, TraceSpan
from tests.arrow.columns import as_in_arrow, read_back
from tests.payloads.framed import frame_count, turns, write
from tests.repositories.samples import a_span, statements
from tests.writers.helpers import trace_id


@pytest.fixture
def framed(pool: StoragePool) -> StoragePool:
    """Spans with values in frames, among others."""
    write(pool, *turns((1, 2, 3), 4))
    write(pool, [a_span(9, n, attributes={"n": n}) for n in range(1, 6)])
    assert frame_count(pool)
    return pool


@pytest.mark.parametrize("batch_size", [3, 1000])
def test_a_stream_has_whole_values(framed: StoragePool, batch_size: int) -> None:
    with framed.unit_of_work() as uow:
        stream = uow.traces.iterate_spans(payload=True)
        table = stream.to_arrow(batch_size).read_all()
        entities = list(stream)
        of_trace = uow.traces.iterate_spans(trace_id=trace_id(2), payload=True)
        assert read_back(of_trace.to_arrow().read_all(), TraceSpan) == as_in_arrow(of_trace)
    assert len(entities) == 17
    assert read_back(table, TraceSpan) == as_in_arrow(entities)
    assert table["payload_frame"].null_count == table["payload_digests"].null_count == 17


def test_pages_and_lists_have_whole_values(framed: StoragePool) -> None:
    with framed.unit_of_work() as uow:
        page = uow.traces.list_spans(payload=True)
        assert read_back(page.to_arrow(), TraceSpan) == as_in_arrow(page)
        events = uow.traces.get_events(trace_id(1))
        assert len(events) == 4
        assert read_back(events.to_arrow(), TraceEvent) == as_in_arrow(events)


def test_frames_of_a_page_are_read_by_one_statement(framed: StoragePool) -> None:
    with framed.unit_of_work() as uow, statements(framed.engine) as seen:
        uow.traces.iterate_spans(payload=True).to_arrow().read_all()
        uow.traces.iterate_spans().to_arrow().read_all()
    assert len(seen) == 3


def test_rows_of_a_damaged_frame_keep_their_previews(
    framed: StoragePool, caplog: pytest.LogCaptureFixture
) -> None:
    with framed.engine.begin() as connection:
        connection.execute(sa.update(PayloadFrame).values(data=b"damaged"))
    with framed.unit_of_work() as uow, caplog.at_level(logging.ERROR):
        stream = uow.traces.iterate_spans(payload=True)
        table = stream.to_arrow().read_all()
        assert read_back(table, TraceSpan) == as_in_arrow(stream)
    assert table["payload_frame"].null_count == 5
    assert "there are only previews" in caplog.text
