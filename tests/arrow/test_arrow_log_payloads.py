"""Arrow has whole values of log records, also if they are stored in log frames."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from observatory_storage import StoragePool
from observatory_storage.models import LogFrame, LogRecord
from tests.arrow.columns import as_in_arrow, read_back
from tests.payloads.framed import START, a_text
from tests.payloads.logged import a_record, framed_logs, write_logs
from tests.repositories.samples import statements
from tests.writers.helpers import trace_id


@pytest.fixture
def framed(pool: StoragePool) -> StoragePool:
    """Records with values of both columns in frames, among others; one body is a list."""
    rows = [a_record(trace, n) for trace in (1, 2) for n in range(1, 5)]
    rows[0]["body_json"] = [{"a": a_text(7), "é": 1e5}]
    rows[1]["attributes"] = {"short": None}
    write_logs(pool, rows[:5], rows[5:])
    write_logs(pool, [a_record(None, n) for n in range(5, 8)])
    assert framed_logs(pool) == 7
    return pool


@pytest.mark.parametrize("batch_size", [3, 1000])
def test_a_stream_has_whole_values(framed: StoragePool, batch_size: int) -> None:
    with framed.unit_of_work() as uow:
        stream = uow.logs.iterate(payload=True)
        table = stream.to_arrow(batch_size).read_all()
        entities = list(stream)
    assert len(entities) == 11
    assert read_back(table, LogRecord) == as_in_arrow(entities)
    assert table["payload_frame"].null_count == table["payload_digests"].null_count == 11


def test_pages_and_lists_have_whole_values(framed: StoragePool) -> None:
    with framed.unit_of_work() as uow:
        page = uow.logs.list()
        assert read_back(page.to_arrow(), LogRecord) == as_in_arrow(page)
        of_trace = uow.logs.get_by_trace(trace_id(1))
        assert len(of_trace) == 4
        assert read_back(of_trace.to_arrow(), LogRecord) == as_in_arrow(of_trace)


def test_frames_of_a_page_are_read_by_one_statement(framed: StoragePool) -> None:
    with framed.unit_of_work() as uow, statements(framed.engine) as seen:
        uow.logs.iterate().to_arrow().read_all()
    assert len(seen) == 2


@pytest.mark.parametrize(
    "given",
    [{"text": "secret", "attributes": {"turn": 3}}, {"contains": "cret-2"}, {"text": "absent"}],
)
def test_searches_convert_what_they_find(framed: StoragePool, given: dict[str, Any]) -> None:
    with framed.unit_of_work() as uow:
        found = uow.logs.iterate(start_time=START - timedelta(hours=1), **given)
        table = found.to_arrow(2).read_all()
        entities = list(found)
    assert bool(entities) == (given != {"text": "absent"})
    assert read_back(table, LogRecord) == as_in_arrow(entities)


def test_rows_of_a_damaged_frame_keep_their_previews(
    framed: StoragePool, caplog: pytest.LogCaptureFixture
) -> None:
    with framed.engine.begin() as connection:
        connection.execute(sa.update(LogFrame).values(data=b"damaged"))
    with framed.unit_of_work() as uow:
        stream = uow.logs.iterate(payload=True)
        table = stream.to_arrow().read_all()
        assert read_back(table, LogRecord) == as_in_arrow(stream)
    assert table["payload_frame"].null_count == 4
    assert "there are only previews" in caplog.text
