"""Writers of the same spans and events wait for each other, and frames stay exact."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from observatory_storage import CopyWriter, StoragePool
from tests import citus
from tests.payloads.invariants import check_payloads, whole_rows
from tests.payloads.test_writing import LONG, a_call, pool_in
from tests.writers.helpers import an_event, empty, eventually


@pytest.fixture
def compressed(database_url: str) -> Iterator[StoragePool]:
    with pool_in(database_url, "compressed") as pool:
        yield pool


def some_events(text: str) -> list[dict[str, Any]]:
    return [an_event(position=at, attributes={"text": f"{at} {text}"}) for at in range(3)]


def spans(pool: Any, text: str) -> None:
    CopyWriter(pool).write_spans([a_call(text=text)])


def events(pool: Any, text: str) -> None:
    CopyWriter(pool).write_events(some_events(text))


@pytest.mark.parametrize("first", [spans, events])
@pytest.mark.parametrize("second", [spans, events])
def test_the_second_writer_replaces_what_the_first_commits_meanwhile(
    compressed: StoragePool, first: Callable[..., None], second: Callable[..., None]
) -> None:
    spans(compressed, "a span, so that there is a trace, and that nobody tries to load " + LONG)
    for number in range(4):  # the next batches are merged at once
        events(compressed, f"{number} {LONG}")
        spans(compressed, f"{number} {LONG}")
    empty(compressed)
    with ThreadPoolExecutor(1) as thread, compressed.unit_of_work() as uow:
        first(uow, "first " + LONG)
        written = thread.submit(second, compressed, "second " + LONG)
        eventually(lambda: _someone_waits(compressed))
        uow.commit()
        written.result()
    check_payloads(compressed)
    rows = whole_rows(compressed)
    name = "trace_spans" if second is spans else "trace_events"
    assert all("second " in row[2]["attributes"] for row in rows[name] if LONG in str(row))


def _someone_waits(pool: StoragePool) -> bool:
    with pool.engine.connect() as connection:
        waiting = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        if citus.URL:
            waiting = f"SELECT sum(result::int) FROM run_command_on_all_nodes($${waiting}$$)"
        return bool(connection.exec_driver_sql(waiting).scalar_one())
