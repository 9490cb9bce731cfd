"""Log records by attributes: those that plain Python finds, in whatever way they are searched."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from observatory_storage import (
    CopyWriter,
    Not,
    OneOf,
    PostgresConfig,
    StorageConfig,
    StoragePool,
    build_partition_indexes,
)
from observatory_storage.repositories import LogFilters
from tests.repositories.plans import walk_first
from tests.repositories.samples import DAY, Row, a_log, backwards, forwards
from tests.repositories.slices import index_slices
from tests.servers import Server

# Of late, for partitions of a day.
BEGIN = (datetime.now(UTC) - 20 * DAY).replace(hour=0, minute=0, second=0, microsecond=0)


def _make_rows() -> list[Row]:
    """Records of three days, many of which have the same time."""
    chance = random.Random(5)
    rows = []
    for number in range(1, 700):
        place = chance.choice(["attributes", "resource_attributes", "scope_attributes"])
        pair = {"tenant": chance.randrange(40), "all": True, "old": number < 300}
        timestamp = BEGIN + chance.randrange(3 * 24 * 6) * timedelta(minutes=10)
        rows.append(a_log(number, timestamp, timestamp_ns=chance.choice([0, 7]), **{place: pair}))
    return rows


ROWS = _make_rows()


@pytest.fixture(scope="module")
def filled(postgres_server: Server, migrated_template: str) -> Iterator[StoragePool]:
    """A day that is closed, one with slices, and one without an index."""
    with (
        postgres_server.database(migrated_template) as url,
        StoragePool(StorageConfig(postgres=PostgresConfig.from_url(url))) as pool,
    ):
        CopyWriter(pool).write_logs(ROWS)
        build_partition_indexes(pool, now=BEGIN + DAY, grace=timedelta(0))
        assert index_slices(pool, [BEGIN + 1.3 * DAY, BEGIN + 1.7 * DAY])
        yield pool


def pairs_of(row: Row) -> Row:
    places = ("attributes", "resource_attributes", "scope_attributes")
    return {key: value for place in places for key, value in row.get(place, {}).items()}


@pytest.mark.parametrize("walked", [1, 40, 10_000])
@pytest.mark.parametrize(
    ("asked", "matches"),
    [
        ({"tenant": 7}, lambda pairs: pairs["tenant"] == 7),
        ({"tenant": OneOf(7, 8.0)}, lambda pairs: pairs["tenant"] in (7, 8)),
        ({"all": True}, lambda _: True),
        ({"old": True, "tenant": Not(7)}, lambda pairs: pairs["old"] and pairs["tenant"] != 7),
        ({"tenant": 99}, lambda _: False),
    ],
    ids=lambda given: None if callable(given) else str(given),
)
def test_pages_have_the_matching_records_in_order(
    filled: StoragePool, monkeypatch: pytest.MonkeyPatch, walked: int, asked: Any, matches: Any
) -> None:
    walk_first(monkeypatch, walked)
    ranges: list[dict[str, Any]] = [
        {},
        {"start_time": BEGIN + 0.4 * DAY, "end_time": BEGIN + 2.2 * DAY},
    ]
    for bounds in ranges:
        filters = LogFilters(attributes=asked, limit=50, **bounds)
        low, high = bounds.get("start_time", BEGIN), bounds.get("end_time", BEGIN + 9 * DAY)
        expected = sorted(
            (
                (row["timestamp"], row["timestamp_ns"], row["id"])
                for row in ROWS
                if matches(pairs_of(row)) and low <= row["timestamp"] < high
            ),
            reverse=True,
        )
        with filled.unit_of_work() as uow:
            pages = forwards(partial(uow.logs.list, filters))
            for found in (pages, backwards(partial(uow.logs.list, filters), pages[-1])):
                rows = (row for page in found for row in page)
                assert [(r.timestamp, r.timestamp_ns, str(r.id)) for r in rows] == expected
            assert uow.logs.list(filters, total="exact").total == len(expected)
