"""Log records that are events, or whose bodies are not text, are searched as well."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from observatory_storage import (
    CopyWriter,
    Exists,
    LogFilters,
    Not,
    OneOf,
    PostgresConfig,
    Prefix,
    StorageConfig,
    StoragePool,
    build_partition_indexes,
)
from tests import citus
from tests.repositories.plans import OF_FRAMES, Plan, plans_of
from tests.repositories.populated import analyse
from tests.repositories.samples import DAY, SECOND, Row, a_log
from tests.repositories.slices import index_slices
from tests.servers import Server

# Of late, for partitions of a day: the first is closed, the second is not.
BEGIN = (datetime.now(UTC) - 20 * DAY).replace(hour=0, minute=0, second=0, microsecond=0)
RECORDS: list[Row] = [
    {"body": "payment of kestrel failed"},
    {"body_json": {"note": "payment of kestrel", "steps": [{"why": "card expired"}]}},
    {
        "event_name": "payment.failed",
        "body": "payment of kestrel",
        "attributes": {"reason": "card expired", "tries": 3},
    },
    {"attributes": {"event.name": "login", "user": "kestrel expired"}},
    {"body": "nothing", "attributes": {"user": "kestrel expired"}},
    {
        "event_name": "gen_ai.client.inference.operation.details",
        "attributes": {"gen_ai.input.messages": '[{"content": "a kestrel flew by"}]'},
    },
    {"event_name": "gen_ai.choice", "body_json": {"message": {"content": "C:\\birds\\kestrel"}}},
]


@pytest.fixture(scope="module", params=[False, True], ids=["", "sliced"])
def filled(
    request: pytest.FixtureRequest, postgres_server: Server, migrated_template: str
) -> Iterator[StoragePool]:
    with postgres_server.database(migrated_template) as url:
        config = StorageConfig(postgres=PostgresConfig.from_url(url))
        with StoragePool(config) as pool:
            rows = [
                a_log(number + 100 * day, BEGIN + day * DAY + number * SECOND, **columns)
                for day in (0, 1)
                for number, columns in enumerate(RECORDS)
            ]
            # Plain lines, so that the planner has a choice.
            rows += [
                a_log(1000 + n, BEGIN + n * DAY / 4000, body=f"line {n} of word{n % 300}")
                for n in range(8000)
            ]
            CopyWriter(pool).write_logs(rows)
            build_partition_indexes(pool, now=BEGIN + DAY, grace=timedelta(0))
            if request.param:
                assert index_slices(pool, [BEGIN + DAY + 2 * SECOND + timedelta(minutes=6)])
            analyse(pool)
            yield pool


@pytest.fixture(params=[0, 1], ids=["closed", "open"])
def bounds(request: pytest.FixtureRequest) -> dict[str, Any]:
    day = int(request.param)
    return {"start_time": BEGIN + day * DAY, "end_time": BEGIN + (day + 1) * DAY}


def numbers(page: Any) -> list[int]:
    return sorted(int(record.id) % 100 for record in page)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kestrel", [0, 1, 2, 3, 5, 6]),
        ("kest* or nowhere", [0, 1, 2, 3, 5, 6]),
        ("payment expired", [1, 2]),
        ('"card expired"', [1, 2]),
        ("kestrel -expired", [0, 5, 6]),
        ("payment -expired", [0]),
        (r"C:\birds\kestrel", [6]),
        ("login", [3]),
        ("3 payment", [2]),
    ],
)
def test_words_stand_in_bodies_and_in_attributes_of_events(
    filled: StoragePool, bounds: dict[str, Any], text: str, expected: list[int]
) -> None:
    with filled.unit_of_work() as uow:
        assert numbers(uow.logs.list(text=text, **bounds)) == expected
        for order in ("time", "rank"):
            page = uow.logs.search_text(text, LogFilters(**bounds), order=order)
            assert numbers(page) == expected
        assert sum(count.count for count in uow.logs.count_by_level(text=text, **bounds)) == len(
            expected
        )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("ESTREL", [0, 1, 2, 3, 5, 6]),
        ("ard exp", [1, 2]),
        ("strel fl", [5]),
        (r"birds\kes", [6]),
        ("kestrel expired", [3]),
        ("%", []),
    ],
)
def test_substrings_stand_there_too(
    filled: StoragePool, bounds: dict[str, Any], value: str, expected: list[int]
) -> None:
    with filled.unit_of_work() as uow:
        assert numbers(uow.logs.list(contains=value, **bounds)) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("gen_ai.choice", [6]),
        (Prefix("gen_ai."), [5, 6]),
        (OneOf("gen_ai.choice", "payment.failed"), [2, 6]),
        (Exists(), [2, 5, 6]),
    ],
    ids=str,
)
def test_the_name_of_the_event_chooses_records(
    filled: StoragePool, bounds: dict[str, Any], given: Any, expected: list[int]
) -> None:
    with filled.unit_of_work() as uow:
        assert numbers(uow.logs.list(event_name=given, **bounds)) == expected
        chosen = uow.logs.list(event_name=Not(given), text="kestrel", **bounds)
        assert numbers(chosen) == [n for n in (0, 1, 2, 3, 5, 6) if n not in expected]


def test_an_event_is_named_in_filters_that_are_text() -> None:
    assert LogFilters.parse("event:gen_ai.*") == LogFilters(event_name=Prefix("gen_ai."))


def read(plans: list[Plan]) -> float:
    return max(sum(scan.rows for scan in plan.run if scan.relation is not None) for plan in plans)


@pytest.mark.parametrize("text", ["kestrel", "expired", "word7 -expired", "nowhere"])
def test_indexes_find_words_in_closed_and_in_open_partitions(
    filled: StoragePool, bounds: dict[str, Any], text: str
) -> None:
    plans = plans_of(filled, lambda uow: uow.logs.search_text(text, LogFilters(**bounds)))
    shown = "\n\n".join(plan.text for plan in plans)
    assert all(plan.read_whole <= OF_FRAMES for plan in plans), shown
    assert read(plans) < 60, shown


@citus.not_there("shards have plans of their own")
def test_an_index_finds_events_by_name(filled: StoragePool, bounds: dict[str, Any]) -> None:
    (plan,) = plans_of(filled, lambda uow: uow.logs.list(event_name="gen_ai.choice", **bounds))
    assert plan.indexes == {"ix_logs_event_name"}, plan.text
    assert plan.rows < 10, plan.text
