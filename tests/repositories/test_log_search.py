"""Words in log records, by time and by rank: against plain Python."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
import sqlalchemy as sa

from observatory_storage import (
    CopyWriter,
    LogRecord,
    StorageError,
    StoragePool,
    ValidationError,
)
from observatory_storage.repositories import LogFilters, Page
from tests.repositories.samples import (
    DAY,
    SECOND,
    START,
    Row,
    a_log,
    backwards,
    forwards,
    ids_of,
    newest_records,
    statements,
    trace_key,
)

WORDS = ("often", "request", "refused", "peer", "timeout", "connect", "connection", "Connexion")
AGES = (0, 1, 59, 599, 600, 601, 7_199, 7_200, 86_400, 90_000, 12 * 86_400, 40 * 86_400)


@pytest.fixture(scope="module")
def records(shared_pool: StoragePool) -> list[Row]:
    """Records of many ages, also of the far past and future, many of them at the same time."""
    rng = random.Random(11)
    times = [START - age * SECOND for age in AGES]
    times += [START - rng.randrange(3_000_000) * SECOND for _ in range(60)]
    times += [datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)]
    rows = [
        a_log(
            number,
            rng.choice(times),
            timestamp_ns=rng.choice([0, 0, 7]),
            severity_number=rng.choice([None, 9, 17]),
            service_name=rng.choice(["api", "worker"]),
            body=None if rng.random() < 0.05 else " ".join(rng.choices(WORDS, k=6)),
        )
        for number in range(1, 500)
    ]
    rows[77]["body"] = "a rarity"
    rows[300]["body"] = "another rarity at 10.0.0.12"
    CopyWriter(shared_pool).write_logs(rows)
    return rows


def words_of(row: Row) -> list[str]:
    return (row["body"] or "").lower().split()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("often", lambda words: "often" in words),
        ("rarity", lambda words: "rarity" in words),
        ("nowhere", lambda words: False),
        ("connect", lambda words: "connect" in words),
        ("connect*", lambda words: any(word.startswith("connect") for word in words)),
        ("CONN*", lambda words: any(word.startswith("conn") for word in words)),
        ("-conn*", lambda words: words and not any(word.startswith("conn") for word in words)),
        (
            "time* -often",
            lambda words: "timeout" in words and "often" not in words,
        ),
        ("rar* or nowh*", lambda words: "rarity" in words),
        (
            '"often conn*"',
            lambda words: any(
                one == "often" and other.startswith("conn") for one, other in pairwise(words)
            ),
        ),
        ('"10.0.0.*"', lambda words: "10.0.0.12" in words),
        ("10.0.0* rarity", lambda words: "10.0.0.12" in words),
    ],
)
@pytest.mark.parametrize(
    "conditions",
    [
        {},
        {"service_name": "api", "start_time": START - DAY},
        {"min_severity": 17, "end_time": START},
        {"start_time": START - 13 * DAY, "end_time": START - 500 * SECOND},
    ],
    ids=str,
)
def test_words_are_found_newest_first(
    shared_pool: StoragePool, records: list[Row], text: str, meant: Any, conditions: dict[str, Any]
) -> None:
    filters = LogFilters(**conditions, limit=110)
    expected = newest_records(
        row
        for row in records
        if meant(words_of(row))
        and filters.service_name in (None, row["service_name"])
        and (row["severity_number"] or 0) >= int(filters.min_severity or 0)
        and (filters.start_time is None or row["timestamp"] >= filters.start_time)
        and (filters.end_time is None or row["timestamp"] < filters.end_time)
    )
    with shared_pool.unit_of_work() as uow:

        def page_at(**cursor: Any) -> Page[LogRecord]:
            return uow.logs.search_text(text, filters, **cursor)

        pages = forwards(page_at)
        assert [id_ for page in pages for id_ in ids_of(page)] == expected
        assert [ids_of(page) for page in backwards(page_at, pages[-1])] == [
            ids_of(p) for p in pages
        ]
        found = uow.logs.iterate(LogFilters(**conditions, text=text), 100)
        assert ids_of(found) == expected
        by_rank = uow.logs.search_text(text, LogFilters(**conditions, limit=500), order="rank")
        assert sorted(ids_of(by_rank)) == sorted(expected)
        counted = uow.logs.search_text(text, filters, total="exact")
        assert counted.total == len(expected)


def test_a_page_takes_few_statements(shared_pool: StoragePool, records: list[Row]) -> None:
    with shared_pool.unit_of_work() as uow:
        # One of them looks for words in payload frames.
        for text, most in (("often", 4 + 1), ("nowhere", 6 + 1)):
            with statements(shared_pool.engine) as seen:
                page = uow.logs.search_text(text, LogFilters(limit=3))
            assert len(seen) <= most
        with statements(shared_pool.engine) as seen:
            page = uow.logs.search_text("often", LogFilters(limit=3), order="rank")
        assert len(seen) == 1 + 1
        assert not uow.logs.search_text("often", LogFilters(service_name="nobody"))
    assert all("resource_attributes" not in sql.rpartition(" FROM ")[0] for sql in seen)
    with pytest.raises(StorageError, match=r"payload=True"):
        _ = page[0].resource_attributes


def test_rows_written_meanwhile_hide_no_row(pool: StoragePool) -> None:
    writer = CopyWriter(pool)
    writer.write_logs([a_log(at, START - at * SECOND, body="word") for at in range(1, 30)])
    with pool.unit_of_work() as uow:
        page = uow.logs.search_text("word", LogFilters(limit=10))
        found = ids_of(page)
        for at in range(2):
            writer.write_logs(
                [a_log(100 + at, START + at * SECOND, body="word"), a_log(200 + at, body="other")]
            )
            page = uow.logs.search_text("word", LogFilters(limit=10), after=page.next)
            found += ids_of(page)
        assert page.next is None
    assert found == [a_log(at)["id"] for at in range(1, 30)]


def test_records_are_ordered_by_rank(pool: StoragePool) -> None:
    bodies = [
        "refused connection",
        "connection refused",
        "connection refused",
        "the connection was, as far as anybody knows, refused in the end",
        "connection of a kind that is not of this world refused",
        "connection",
        "connection refused, connection refused, connection refused",
    ]
    rows = [a_log(at, START + at * SECOND, body=body) for at, body in enumerate(bodies, 1)]
    CopyWriter(pool).write_logs(rows)
    ranked = sa.text(
        "SELECT id FROM (SELECT *, ts_rank_cd(to_tsvector('simple', body), q, 1) AS rank"
        " FROM logs, websearch_to_tsquery('simple', 'connection refused') AS q"
        " WHERE to_tsvector('simple', body) @@ q) AS found ORDER BY rank DESC, timestamp DESC"
    )
    with pool.unit_of_work() as uow:
        expected = [str(id_) for id_ in uow.session.scalars(ranked)]

        def page_at(**cursor: Any) -> Page[LogRecord]:
            filters = LogFilters(limit=2)
            return uow.logs.search_text("connection refused", filters, order="rank", **cursor)

        pages = forwards(page_at)
        assert [id_ for page in pages for id_ in ids_of(page)] == expected
        assert [ids_of(page) for page in backwards(page_at, pages[-1])] == [
            ids_of(p) for p in pages
        ]
        assert page_at(total="exact").total == 6
        assert pages[1].next is not None
        with pytest.raises(ValidationError, match="another query"):
            uow.logs.search_text("connection refused", LogFilters(limit=2), after=pages[1].next)
        by_time = uow.logs.search_text("connection refused", LogFilters(limit=2))
        with pytest.raises(ValidationError, match="another query"):
            page_at(after=by_time.next)
        for wrong in ("best", None, 5):
            with pytest.raises(ValidationError, match="order"):
                uow.logs.search_text("x", order=wrong)  # type: ignore[arg-type]  # what is tried here
        with pytest.raises(ValidationError, match="before"):
            page_at(after=pages[0].next, before=pages[1].previous)
    # Those in which the words stand together before those in which they stand apart.
    assert expected[0] == rows[6]["id"]
    assert expected.index(rows[1]["id"]) < expected.index(rows[4]["id"])
    assert expected.index(rows[3]["id"]) < expected.index(rows[4]["id"])
    # And of two alike the newest.
    assert expected.index(rows[2]["id"]) + 1 == expected.index(rows[1]["id"])


def test_records_of_a_trace_may_be_of_any_time(pool: StoragePool) -> None:
    times = [START - 40 * DAY, START, START + SECOND, START + 40 * DAY]
    CopyWriter(pool).write_logs(
        [a_log(at, time, trace_id=trace_key(1)) for at, time in enumerate(times, 1)]
    )
    with pool.unit_of_work() as uow:
        found = [record.timestamp for record in uow.logs.get_by_trace(trace_key(1))]
        bounded = uow.logs.get_by_trace(trace_key(1), START, START + SECOND)
        assert [r.timestamp for r in uow.logs.get_by_trace(trace_key(1), START)] == times[1:]
        with pytest.raises(ValidationError, match="end_time"):
            uow.logs.get_by_trace(trace_key(1), START, START - SECOND)
    assert found == times
    assert [record.timestamp for record in bounded] == [START]
