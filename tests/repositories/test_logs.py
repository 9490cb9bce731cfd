"""Log records: lists against plain Python, words in bodies, counts."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from observatory_storage import (
    CopyWriter,
    LogRecord,
    NotFound,
    StorageError,
    StoragePool,
    ValidationError,
)
from observatory_storage.repositories import LevelCount, LogFilters, Page
from tests.repositories.samples import (
    DAY,
    SECOND,
    START,
    Row,
    a_log,
    backwards,
    forwards,
    span_key,
    statements,
    trace_key,
)

BODIES = [
    "connection refused by peer",
    "Connection reset; will retry",
    "retry of request 7 timed out",
    "100% done_with it",
    'O\'Reilly said: "drop table"',
    None,
]


@pytest.fixture(scope="module")
def records(shared_pool: StoragePool) -> list[Row]:
    rng = random.Random(5)
    rows = [
        a_log(
            number,
            START + rng.choice([0, 0, 1]) * DAY + rng.randrange(9) * SECOND,
            timestamp_ns=rng.choice([0, 0, 7, 999]),
            severity_number=rng.choice([None, 1, 9, 12, 13, 17, 21, 24]),
            body=rng.choice(BODIES),
            service_name=rng.choice(["api", "worker"]),
            trace_id=rng.choice([None, trace_key(1), trace_key(2)]),
            span_id=rng.choice([None, span_key(1)]),
            **{
                rng.choice(["attributes", "resource_attributes", "scope_attributes"]): rng.choice(
                    [{}, {"k": 1}, {"k": "1"}, {"a.b": True}]
                )
            },
        )
        for number in range(1, 160)
    ]
    CopyWriter(shared_pool).write_logs(rows)
    return rows


def newest(rows: list[Row], **wanted: Any) -> list[str]:
    """The ids of the rows that meet what is wanted, in the order of the list."""

    def meets(row: Row) -> bool:
        pairs = {**row.get("attributes", {}), **row.get("resource_attributes", {})}
        pairs |= row.get("scope_attributes", {})
        special: dict[str, Callable[[Any], bool]] = {
            "min_severity": lambda v: (row["severity_number"] or 0) >= v,
            "start_time": lambda v: row["timestamp"] >= v,
            "end_time": lambda v: row["timestamp"] < v,
            "attributes": lambda v: all(
                key in pairs and pairs[key] == x and type(pairs[key]) is type(x)
                for key, x in v.items()
            ),
            "text": lambda v: v(row["body"] or ""),
        }
        return all(
            special[field](value) if field in special else row[field] == value
            for field, value in wanted.items()
        )

    found = [row for row in rows if meets(row)]
    found.sort(key=lambda row: (row["timestamp"], row["timestamp_ns"], row["id"]), reverse=True)
    return [row["id"] for row in found]


def ids(rows: Any) -> list[str]:
    return [str(row.id) for row in rows]


@pytest.mark.parametrize(
    "conditions",
    [
        {},
        {"service_name": "api"},
        {"service_name": "a%"},
        {"min_severity": 13},
        {"min_severity": 24, "service_name": "worker"},
        {"trace_id": trace_key(1)},
        {"trace_id": trace_key(2), "span_id": span_key(1)},
        {"span_id": span_key(2)},
        {"start_time": START + DAY},
        {"start_time": START + 2 * SECOND, "end_time": START + DAY + 3 * SECOND},
        {"attributes": {"k": 1}},
        {"attributes": {"k": "1"}},
        {"attributes": {"a.b": True}},
        {"attributes": {"a.b": 1}},
        {"attributes": {"a": "b"}},
    ],
    ids=str,
)
def test_records_are_those_that_match_newest_first(
    shared_pool: StoragePool, records: list[Row], conditions: dict[str, Any]
) -> None:
    expected = newest(records, **conditions)
    filters = LogFilters(**conditions, limit=7)
    with shared_pool.unit_of_work() as uow:

        def page_at(**cursor: Any) -> Page[LogRecord]:
            return uow.logs.list(filters, **cursor)

        pages = forwards(page_at)
        assert [id_ for page in pages for id_ in ids(page)] == expected
        assert [ids(page) for page in backwards(page_at, pages[-1])] == [
            ids(page) for page in pages
        ]
        assert ids(uow.logs.iterate(filters, 10)) == expected
        stats = uow.logs.get_stats(filters)
        assert stats.log_count == len(expected)
        assert sum(level.count for level in uow.logs.count_by_level(filters)) == len(expected)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("connection", lambda body: "onnection" in body),
        ("CONNECTION retry", lambda body: body.startswith("Connection reset")),
        ('"request 7"', lambda body: "request 7" in body),
        ('"7 request"', lambda body: False),
        ("retry -request", lambda body: body.startswith("Connection reset")),
        ("refused or timed", lambda body: "refused" in body or "timed" in body),
        ("retr", lambda body: False),
        ("retr%", lambda body: False),
        ("drop table", lambda body: "drop" in body),
        ("'; DROP TABLE logs; --", lambda body: False),
        ("!!! & | ( ) <-> :*", lambda body: False),
        ("O'Reilly", lambda body: "Reilly" in body),
    ],
)
@pytest.mark.parametrize("conditions", [{}, {"service_name": "api", "start_time": START + DAY}])
def test_words_are_found_in_bodies(
    shared_pool: StoragePool,
    records: list[Row],
    text: str,
    meant: Any,
    conditions: dict[str, Any],
) -> None:
    expected = newest(records, **conditions, text=meant)
    filters = LogFilters(**conditions, limit=5)
    with shared_pool.unit_of_work() as uow:

        def page_at(**cursor: Any) -> Page[LogRecord]:
            return uow.logs.search_text(text, filters, **cursor)

        assert [id_ for page in forwards(page_at) for id_ in ids(page)] == expected
        assert ids(uow.logs.iterate(LogFilters(**conditions, text=text))) == expected


def test_a_search_needs_words(shared_pool: StoragePool) -> None:
    with shared_pool.unit_of_work() as uow:
        for text in ("", "  ", None, 5, "a" * 10_001):
            with pytest.raises(ValidationError, match="text"):
                uow.logs.search_text(text)  # type: ignore[arg-type]  # what is tried here
        with pytest.raises(ValidationError, match="filters"):
            uow.logs.search_text("a", LogFilters(text="b"))
        assert not uow.logs.search_text("long" * 1000)
        assert not uow.logs.search_text("nul \0 and surrogate \ud800")


def test_a_long_body_is_found_by_its_beginning(pool: StoragePool) -> None:
    body = "needle " + "hay " * 50_000 + " thread"
    CopyWriter(pool).write_logs([a_log(1, body=body)])
    with pool.unit_of_work() as uow:
        (record,) = uow.logs.search_text("needle hay")
        assert record.body == body
        assert not uow.logs.search_text("thread")


def test_a_record_is_found_by_its_id(shared_pool: StoragePool, records: list[Row]) -> None:
    row = records[40]
    with shared_pool.unit_of_work() as uow:
        for form in (row["id"], UUID(row["id"])):
            assert uow.logs.get(form).timestamp == row["timestamp"]
        assert uow.logs.get(row["id"], row["timestamp"]).timestamp_ns == row["timestamp_ns"]
        with pytest.raises(NotFound):
            uow.logs.get(row["id"], row["timestamp"] + SECOND)
        with pytest.raises(NotFound):
            uow.logs.get(UUID(int=2**100))
        with pytest.raises(ValidationError, match="id"):
            uow.logs.get("x")


def test_the_records_of_a_trace_come_whole_oldest_first(
    shared_pool: StoragePool, records: list[Row]
) -> None:
    expected = newest(records, trace_id=trace_key(1))[::-1]
    with shared_pool.unit_of_work() as uow:
        found = uow.logs.get_by_trace(trace_key(1))
        assert uow.logs.get_by_trace(trace_key(3)) == []
    assert ids(found) == expected
    assert all(isinstance(record.attributes, dict) for record in found)


def test_lists_load_payloads_only_if_asked(shared_pool: StoragePool, records: list[Row]) -> None:
    with shared_pool.unit_of_work() as uow:
        with statements(shared_pool.engine) as seen:
            (record,) = uow.logs.list(LogFilters(limit=1))
        assert len(seen) == 1
        assert "resource_attributes" not in seen[0].partition(" FROM ")[0]
        (whole,) = uow.logs.list(LogFilters(limit=1), payload=True)
    assert record.body == whole.body
    assert record.attributes == whole.attributes
    assert isinstance(whole.resource_attributes, dict)
    not_loaded = r"LogRecord\.resource_attributes was not loaded.*payload=True"
    with pytest.raises(StorageError, match=not_loaded):
        _ = record.resource_attributes


def test_levels_are_counted_in_their_order(shared_pool: StoragePool, records: list[Row]) -> None:
    def level(row: Row) -> str:
        number = row["severity_number"]
        names = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"]
        return "UNSPECIFIED" if number is None else names[(number - 1) // 4]

    order = ["UNSPECIFIED", "TRACE", "INFO", "WARN", "ERROR", "FATAL"]
    levels = [level(row) for row in records]
    with shared_pool.unit_of_work() as uow:
        assert uow.logs.count_by_level() == [LevelCount(name, levels.count(name)) for name in order]
        by_day = uow.logs.count_by_level(bucket_size_secs=86_400)
        midnight = START - timedelta(hours=12)
        assert by_day == [
            LevelCount(name, count, midnight + day * DAY)
            for day in (0, 1)
            for name in order
            if (
                count := sum(
                    level(row) == name
                    and midnight + day * DAY <= row["timestamp"] < midnight + (day + 1) * DAY
                    for row in records
                )
            )
        ]


def test_totals_are_those_of_the_records(shared_pool: StoragePool, records: list[Row]) -> None:
    with shared_pool.unit_of_work() as uow:
        stats = uow.logs.get_stats()
    times = [row["timestamp"] for row in records]
    assert stats.log_count == len(records)
    assert stats.error_count == sum((row["severity_number"] or 0) >= 17 for row in records)
    assert (stats.service_count, stats.trace_count) == (2, 2)
    assert (stats.first_timestamp, stats.last_timestamp) == (min(times), max(times))


def test_every_query_of_an_empty_database_returns_an_empty_result(pool: StoragePool) -> None:
    with pool.unit_of_work() as uow:
        assert list(uow.logs.list()) == list(uow.logs.iterate()) == []
        assert not uow.logs.search_text("word")
        assert uow.logs.count_by_level() == uow.logs.count_by_level(bucket_size_secs=1) == []
        stats = uow.logs.get_stats()
        assert (stats.log_count, stats.error_count, stats.service_count) == (0, 0, 0)
        assert stats.first_timestamp is stats.last_timestamp is None
