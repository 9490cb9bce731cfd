"""The tail of a pool: each row once, with Redis, without it, and while it is restarted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count as numbers
from typing import Any

import pytest
import sqlalchemy as sa

from observatory_embedded import EmbeddedPostgres, EmbeddedValkey
from observatory_storage import (
    CopyWriter,
    DataPointFilters,
    LogFilters,
    MetricWriter,
    PayloadsConfig,
    PostgresConfig,
    RetryConfig,
    StorageConfig,
    StorageError,
    StoragePool,
    TraceFilters,
    ValidationError,
)
from tests import citus
from tests.repositories.samples import SECOND, START, a_log, a_span, trace_key
from tests.repositories.test_tail import others_have_ended
from tests.streams.conftest import OpenPool

Options = dict[str, Any]
SOON: Options = {"poll_interval": 0.1, "timeout": 0.3}


def rows_of(pool: StoragePool, signal: Any, **options: Any) -> list[Any]:
    return [row for page in pool.tail(signal, **{**SOON, **options}) for row in page]


def ids_of(pages: Any) -> list[int]:
    return [record.id.int for page in pages for record in page]


def write(pool: StoragePool, *ids: int, **columns: Any) -> None:
    CopyWriter(pool).write_logs([a_log(n, **columns) for n in ids])
    others_have_ended(pool)


def test_tail_begins_with_the_newest_rows_and_goes_on_with_new_ones(pool: StoragePool) -> None:
    write(pool, 1)
    write(pool, 2, timestamp=START + SECOND)
    pages = pool.tail("logs", limit=1, **SOON)
    assert ids_of([next(pages)]) == [2]
    write(pool, *range(3, 1_500))
    assert ids_of(pages) == [*range(3, 1_500)]


def test_first_page_comes_even_if_it_is_empty(pool: StoragePool) -> None:
    pages = pool.tail("logs", **SOON)
    assert len(next(pages)) == 0
    write(pool, 1)
    assert ids_of(pages) == [1]


def test_tail_continues_from_a_cursor(pool: StoragePool) -> None:
    page = next(pool.tail("logs", min_severity="warn", **SOON))
    write(pool, *range(1, 300), severity_number=17)
    write(pool, 300, severity_number=9)
    rest = pool.tail("logs", LogFilters(min_severity="warn"), cursor=page.next, **SOON)
    assert ids_of(rest) == [*range(1, 300)]


def test_tail_ends_when_the_time_range_has_passed(pool: StoragePool) -> None:
    write(pool, 1)
    pages = pool.tail("logs", end_time=START + SECOND, poll_interval=0.1)
    assert ids_of(pages) == [1]


@citus.not_there("a tail does not return changes")
def test_spans_come_with_those_that_were_changed(pool: StoragePool) -> None:
    pages = pool.tail("spans", status="ok", **SOON)
    next(pages)
    CopyWriter(pool).write_spans([a_span(1, 1, status="ok", end_time=None), a_span(1, 2)])
    spans = next(pages).rows
    assert [(span.span_id, span.end_time) for span in spans] == [(f"{1:016x}", None)]
    CopyWriter(pool).write_spans([a_span(1, 1, status="ok")])
    spans = next(pages).rows
    assert [(span.span_id, span.end_time) for span in spans] == [(f"{1:016x}", START + SECOND)]
    with pytest.raises(StorageError, match="payload=True"):
        _ = spans[0].attributes


def test_spans_are_chosen_by_words_in_frames(database_url: str) -> None:
    config = StorageConfig(
        postgres=PostgresConfig.from_url(database_url),
        payloads=PayloadsConfig(mode="compressed", threshold_bytes=0),
    )
    with StoragePool(config) as pool:
        pages = pool.tail("spans", text="river", payload=True, **SOON)
        next(pages)
        CopyWriter(pool).write_spans(
            [
                a_span(1, n, attributes={"gen_ai.prompt": f"{words} " * 300})
                for n, words in enumerate(("a river", "a mountain"), 1)
            ]
        )
        (span,) = next(pages)
    assert span.attributes["gen_ai.prompt"].startswith("a river a river")


def test_a_poll_for_words_goes_on_until_it_is_full(pool: StoragePool) -> None:
    def poll(cursor: str | None) -> tuple[str | None, list[int]]:
        others_have_ended(pool)
        with pool.unit_of_work() as uow:
            page = uow.traces.tail_spans(cursor, text="river", limit=2)
        return page.next, [int(span.span_id, 16) for span in page]

    def write(first: int) -> None:
        prompts = {n: "a river" if n % 5 == 0 else "a mountain" for n in range(first, first + 20)}
        CopyWriter(pool).write_spans(
            [a_span(1, n, attributes={"gen_ai.prompt": text}) for n, text in prompts.items()]
        )

    cursor, found = poll(None)
    assert found == []
    write(1)
    cursor, found = poll(cursor)
    assert found == [5, 10]
    cursor, found = poll(cursor)
    assert found == [15, 20]
    cursor, found = poll(cursor)
    assert found == []
    write(101)
    # Spans that do not match fill more pages than one poll reads.
    CopyWriter(pool).write_spans([a_span(2, n) for n in range(1, 61)])
    CopyWriter(pool).write_spans([a_span(3, 5, attributes={"gen_ai.prompt": "a river"})])
    pages = []
    for _ in range(6):
        cursor, found = poll(cursor)
        pages.append(found)
    assert pages[:2] == [[105, 110], [115, 120]]
    assert [n for page in pages[2:] for n in page] == [5]


def test_traces_come_when_they_get_spans(pool: StoragePool) -> None:
    pages = pool.tail("traces", TraceFilters(status="error"), **SOON)
    next(pages)
    CopyWriter(pool).write_spans([a_span(1, 1), a_span(2, 2, status="error")])
    others_have_ended(pool)
    assert [(row.trace_id, row.span_count) for row in next(pages)] == [(trace_key(2), 1)]
    CopyWriter(pool).write_spans([a_span(1, 3, status="error")])
    others_have_ended(pool)
    assert [(row.trace_id, row.span_count) for row in next(pages)] == [(trace_key(1), 2)]


def test_data_points_come_once(pool: StoragePool) -> None:
    with MetricWriter(pool) as writer:
        metric = writer.write_metric({"name": "queue", "metric_type": "gauge"})
        other = writer.write_metric({"name": "other", "metric_type": "gauge"})
    pages = pool.tail("data_points", DataPointFilters(metric_id=metric), **SOON)
    next(pages)
    for value, of in enumerate((metric, other, metric)):
        point = {"metric_id": of, "timestamp": START + value * SECOND, "value": value}
        CopyWriter(pool).write_data_points([point])
    assert [point.value for page in pages for point in page] == [0, 2]


@pytest.mark.parametrize("signal", ["spans", "data_points"])
def test_an_index_finds_the_rows_of_the_last_minutes(pool: StoragePool, signal: str) -> None:
    table = {"spans": "trace_spans", "data_points": "metric_data_points"}[signal]
    with pool.engine.connect() as connection:
        found = connection.scalars(
            sa.text("SELECT indexdef FROM pg_indexes WHERE tablename = :table"), {"table": table}
        )
        assert any("USING brin (created_at)" in each for each in found)


def test_wrong_arguments_are_named(pool: StoragePool) -> None:
    with pytest.raises(ValidationError, match="cursor"):
        next(pool.tail("logs", cursor="x"))
    with pytest.raises(ValidationError, match="poll_interval"):
        pool.tail("logs", poll_interval=0)
    with pytest.raises(ValidationError, match="on_error=3: must be callable"):
        pool.tail("logs", on_error=3)  # type: ignore[call-overload]  # what is tested
    with pytest.raises(ValidationError, match="signal"):
        pool.tail("metrics")  # type: ignore[call-overload]  # what is tested


def test_a_published_row_wakes_a_tail_that_polls_rarely(
    open_pool: OpenPool, redis_url: str
) -> None:
    pool = open_pool(redis_url)
    pages = pool.tail("logs", poll_interval=600)
    next(pages)
    found: list[int] = []
    reader = threading.Thread(target=lambda: found.extend(ids_of([next(pages)])))
    reader.start()
    # The pauses grow to ten minutes. Without the stream, it would not end.
    for number in numbers(1):
        reader.join(0.2)
        if not reader.is_alive():
            break
        write(pool, number)
    assert found


def test_tail_returns_each_row_once_while_redis_is_restarted(
    open_pool: OpenPool, embedded_redis: EmbeddedValkey
) -> None:
    pool = open_pool(embedded_redis.url, max_waiting_rows=100)
    pages = pool.tail("logs", poll_interval=0.2, timeout=3)
    next(pages)

    def write_all() -> None:
        for first in range(1, 3_001, 100):
            write(pool, *range(first, first + 100))
            if first == 1_001:
                embedded_redis.kill()
            if first == 2_001:
                embedded_redis.start()

    writer = threading.Thread(target=write_all)
    writer.start()
    found = ids_of(pages)
    writer.join()
    assert found == [*range(1, 3_001)]


@pytest.fixture
def stoppable(embedded_server: EmbeddedPostgres) -> Iterator[StoragePool]:
    config = StorageConfig(
        postgres=PostgresConfig.from_url(embedded_server.url),
        retry=RetryConfig(initial_delay_ms=10, max_delay_ms=100),
    )
    with StoragePool(config) as pool:
        pool.run_migrations()
        yield pool


def test_tail_waits_for_a_database_that_does_not_answer(
    stoppable: StoragePool, embedded_server: EmbeddedPostgres
) -> None:
    errors: list[StorageError] = []
    pages = stoppable.tail("logs", poll_interval=0.1, on_error=errors.append)
    next(pages)
    write(stoppable, 1)
    embedded_server.stop()
    starter = threading.Timer(1, embedded_server.start)
    starter.start()
    assert ids_of([next(page for page in pages if page.rows)]) == [1]
    starter.join()
    assert errors
    assert all(error.retryable for error in errors)


def test_tail_ends_in_time_while_the_database_does_not_answer(
    stoppable: StoragePool, embedded_server: EmbeddedPostgres
) -> None:
    errors: list[StorageError] = []
    embedded_server.stop()
    assert ids_of(stoppable.tail("logs", timeout=0.3, on_error=errors.append)) == []
    assert errors


def test_tail_fails_if_the_time_range_has_passed_and_the_database_does_not_answer(
    stoppable: StoragePool, embedded_server: EmbeddedPostgres
) -> None:
    errors: list[StorageError] = []
    pages = stoppable.tail("logs", end_time=START, on_error=errors.append)
    embedded_server.stop()
    with pytest.raises(StorageError):
        next(pages)
    assert len(errors) == stoppable.config.retry.max_attempts


def test_tail_of_a_wide_time_range_prunes_by_the_filters(pool: StoragePool) -> None:
    now = datetime.now(UTC)
    pages = pool.tail("logs", start_time=now - timedelta(hours=1), **SOON)
    next(pages)
    write(pool, 1, timestamp=now)
    write(pool, 2, timestamp=START)
    assert ids_of(pages) == [1]
