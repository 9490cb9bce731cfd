"""Rows are stored before a task is acknowledged, whatever else listens to Celery's signals."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from celery import Celery, signals

from observatory_storage import StoragePool, TraceSpan, TraceWriter, WriterConfig
from observatory_storage.celery import flush_after_task
from tests.writers.helpers import fetch


@pytest.fixture
def app() -> Celery:
    return Celery("tasks", broker="memory://", set_as_current=False)


@pytest.fixture
def writer(pool: StoragePool) -> Iterator[TraceWriter]:
    with TraceWriter(pool, WriterConfig(flush_interval_secs=600)) as writer:
        yield writer


def _write(writer: TraceWriter, number: int) -> None:
    now = datetime.now(UTC)
    span = {"trace_id": f"{number:032x}", "span_id": "1" * 16, "name": "task"}
    writer.write_span({**span, "start_time": now, "end_time": now})


def test_what_receivers_write_that_were_connected_later_is_flushed(
    app: Celery, pool: StoragePool, writer: TraceWriter
) -> None:
    ended: list[str] = []

    def instrumentation(task_id: str, **_: object) -> None:
        ended.append(task_id)
        _write(writer, len(ended))

    @app.task  # type: ignore[untyped-decorator]  # Celery comes without types
    def work() -> None:
        pass

    flush_after_task(app)
    flush_after_task(Celery("others", broker="memory://", set_as_current=False))
    signals.task_postrun.connect(instrumentation)
    try:
        for number in (1, 2, 3):
            work.apply()
            assert len(fetch(pool, TraceSpan)) == number
    finally:
        signals.task_postrun.disconnect(instrumentation)


def test_asking_twice_flushes_once(app: Celery) -> None:
    flush_after_task(app)
    before = len(signals.task_postrun.receivers)
    flush_after_task(app)
    assert len(signals.task_postrun.receivers) == before
