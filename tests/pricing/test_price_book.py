"""The prices that a pool keeps: when they are read, by whom, and what if they cannot be."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from observatory_embedded import EmbeddedPostgres
from observatory_storage import CopyWriter, StoragePool, load_prices
from observatory_storage.pricing import price_book
from observatory_storage.pricing.stored_prices import PRICES
from tests.pricing.price_list import PRICES as PRICE_LIST
from tests.pricing.price_list import price_file
from tests.pricing.spans_of_calls import a_call, costs, price_model, totals
from tests.writers.helpers import quick_pool
from tests.writers.trace_model import check_traces

COST = Decimal("0.002")


@pytest.fixture
def statements(pool: StoragePool) -> Iterator[list[str]]:
    """The statements about prices."""
    found: list[str] = []

    def note(*arguments: Any) -> None:
        if "model_pricing" in arguments[2]:
            found.append(arguments[2])

    sa.event.listen(pool.engine, "before_cursor_execute", note)
    yield found
    sa.event.remove(pool.engine, "before_cursor_execute", note)


def test_prices_are_read_once_for_many_batches(pool: StoragePool, statements: list[str]) -> None:
    price_model(pool, 1)
    statements.clear()
    for number in range(1, 5):
        CopyWriter(pool).write_spans([a_call(1, number)])
    assert len(statements) == 2  # what they are like, and the prices
    assert costs(pool) == [(COST, "computed")] * 4


def test_prices_that_have_not_changed_are_not_read_again(
    pool: StoragePool, statements: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(price_book, "_SECONDS_KEPT", 0)
    price_model(pool, 1)
    first = pool.prices.table()
    statements.clear()
    assert pool.prices.table() is first
    assert len(statements) == 1
    with pool.engine.begin() as connection:  # by hand
        connection.execute(sa.update(PRICES).values(input_usd_per_mtok=7))
    changed = pool.prices.table()
    assert changed is not None
    assert changed.prices[0].rates["input"] == 7
    with pool.engine.begin() as connection:
        connection.execute(sa.delete(PRICES))
    assert pool.prices.table() is None


def test_without_prices_only_their_absence_is_read(
    pool: StoragePool, statements: list[str]
) -> None:
    for number in range(1, 4):
        CopyWriter(pool).write_spans([a_call(1, number)])
    assert len(statements) == 2
    assert costs(pool) == [(None, None)] * 3


def test_telemetry_is_written_if_prices_may_not_be_read(
    embedded_server: EmbeddedPostgres, caplog: pytest.LogCaptureFixture
) -> None:
    url = embedded_server.url
    with quick_pool(url) as pool:
        pool.run_migrations()
        price_model(pool, 1)
        with pool.engine.begin() as connection:
            connection.exec_driver_sql("CREATE ROLE writer LOGIN")
            connection.exec_driver_sql(
                "GRANT SELECT, INSERT, UPDATE, DELETE ON traces, trace_spans, trace_events,"
                " span_changes, rollup_state, observatory_version TO writer"
            )
            connection.exec_driver_sql("GRANT CREATE, USAGE ON SCHEMA public TO writer")
        CopyWriter(pool).write_spans([a_call(1, 1)])  # makes the partition, as its owner
        with quick_pool(url, username="writer") as other, caplog.at_level(logging.WARNING):
            CopyWriter(other).write_spans([a_call(1, 2)])
            CopyWriter(other).write_spans([a_call(1, 3)])
        assert caplog.text.count("prices cannot be read") == 1
        assert costs(pool) == [(COST, "computed"), (None, None), (None, None)]


def test_prices_are_loaded_beside_writers(
    pool: StoragePool, tmp_path: Any, database_url: str
) -> None:
    path = price_file(tmp_path, PRICE_LIST)
    stop = threading.Event()

    def write(trace: int) -> int:
        number = 0
        while not stop.is_set() or number < 20:
            number += 1
            span = a_call(trace, trace * 100_000 + number, model="o3", provider="openai")
            CopyWriter(pool).write_spans([span, a_call(trace, trace * 100_000 + 50_000 + number)])
        return number

    def load() -> None:
        with quick_pool(database_url) as other:
            for _ in range(5):
                load_prices(pool, path)
                load_prices(other, path, replace=True)

    with ThreadPoolExecutor(4) as threads:
        writers = [threads.submit(write, trace) for trace in (1, 2)]
        loads = [threads.submit(load) for _ in range(2)]
        try:
            for one in loads:
                one.result()
        finally:
            stop.set()
        written = sum(one.result() for one in writers)
    CopyWriter(pool).write_spans([a_call(3, 1, model="o3", provider="openai")])
    known = [cost for cost, _ in costs(pool) if cost is not None]
    assert set(known) == {Decimal("0.0263")}  # 1,000 and 100 tokens, and the request
    assert len(known) <= written + 1
    assert totals(pool)[-1] == Decimal("0.0263")
    check_traces(pool)


def test_a_child_process_reads_prices_for_itself(pool: StoragePool) -> None:
    price_model(pool, 1)
    CopyWriter(pool).write_spans([a_call(1, 1)])
    lock = pool.prices._lock.get()
    with lock:  # as if another thread were reading them during the fork
        pool.prices.forget()
        child = os.fork()
        if not child:
            try:
                CopyWriter(pool).write_spans([a_call(1, 2)])
                os._exit(0)
            finally:
                os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert costs(pool) == [(COST, "computed")] * 2
