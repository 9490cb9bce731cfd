"""Searches of log records look through few of them, as EXPLAIN tells."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from observatory_storage import (
    CopyWriter,
    PostgresConfig,
    StorageConfig,
    StoragePool,
)
from observatory_storage.repositories import LogFilters
from tests import citus
from tests.repositories.plans import OF_FRAMES, Plan, plans_of
from tests.repositories.populated import analyse
from tests.repositories.samples import (
    DAY,
    a_log,
    trace_key,
)
from tests.servers import Server

pytestmark = citus.not_there("shards have plans of their own")

# Midnight, of days that are near enough to have partitions of their own.
FIRST = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - 3 * DAY

RARE = "rare https://a.org/b 東京都"


@pytest.fixture(scope="module")
def filled_pool(postgres_server: Server, migrated_template: str) -> Iterator[StoragePool]:
    """Three days of records as a server has them after a while; of one word there are few."""
    rng = random.Random(3)
    vocabulary = [f"word{number}" for number in range(300)]
    rows = (
        a_log(
            number + 1,
            FIRST + number * (3 * DAY / 15_000),
            trace_id=trace_key(number // 5 + 1),
            body=" ".join(
                [
                    *rng.choices(vocabulary, k=12),
                    *(["rare https://a.org/b 東京都"] * (number % 2500 == 7)),
                ]
            ),
        )
        for number in range(15_000)
    )
    with postgres_server.database(migrated_template) as url:
        config = StorageConfig(postgres=PostgresConfig.from_url(url))
        with StoragePool(config) as made:
            CopyWriter(made).write_logs(rows)
            analyse(made)
            yield made


def partition(day: int) -> str:
    return f"logs_p{FIRST + day * DAY:%Y%m%d}"


def looked_through(plans: list[Plan]) -> float:
    """The most records that one of the statements has looked at."""
    return max(sum(scan.rows for scan in plan.run if scan.relation is not None) for plan in plans)


@pytest.mark.parametrize("order", ["time", "rank"])
@pytest.mark.parametrize(
    "text", ["rare", "rar*", '"rare"', "nowhere", "rare -nowhere", "https://a.org/b", "京都"]
)
def test_rare_words_are_found_by_the_index(filled_pool: StoragePool, order: Any, text: str) -> None:
    filters = LogFilters(start_time=FIRST + DAY, end_time=FIRST + 2 * DAY)
    plans = plans_of(filled_pool, lambda uow: uow.logs.search_text(text, filters, order=order))
    for plan in plans:
        assert plan.relations("logs") <= {partition(1)}, plan.text
        assert plan.read_whole <= OF_FRAMES, plan.text
    # A slice of a few minutes has so few records that they are read by their time.
    assert any("ix_logs_body" in plan.indexes for plan in plans)
    assert looked_through(plans) < 60, "\n\n".join(plan.text for plan in plans)


def test_rare_words_are_found_in_all_time(filled_pool: StoragePool) -> None:
    plans = plans_of(filled_pool, lambda uow: uow.logs.search_text("rare"))
    assert any("ix_logs_body" in plan.indexes for plan in plans)
    assert all(plan.read_whole <= OF_FRAMES for plan in plans)
    assert looked_through(plans) < 60, "\n\n".join(plan.text for plan in plans)


def test_frequent_words_are_found_in_little_time(filled_pool: StoragePool) -> None:
    filters = LogFilters(limit=5)
    plans = plans_of(filled_pool, lambda uow: uow.logs.search_text("word7 or word8*", filters))
    # One in seven records matches; of fifteen thousand, those of the last two hours are read.
    assert len(plans) <= 3
    assert looked_through(plans) < 3000, "\n\n".join(plan.text for plan in plans)
    with filled_pool.unit_of_work() as uow:
        page = uow.logs.search_text("word7 or word8*", filters)
        following = plans_of(
            filled_pool,
            lambda uow: uow.logs.search_text("word7 or word8*", filters, after=page.next),
        )
    assert len(following) <= 2


def test_records_of_a_trace_are_found_by_the_index(filled_pool: StoragePool) -> None:
    (plan,) = plans_of(filled_pool, lambda uow: uow.logs.get_by_trace(trace_key(1000)))
    assert plan.indexes == {"ix_logs_trace_id"}, plan.text
    assert plan.rows < 30
    bounds = (FIRST + DAY, FIRST + 2 * DAY)
    (plan,) = plans_of(filled_pool, lambda uow: uow.logs.get_by_trace(trace_key(1000), *bounds))
    assert plan.relations("logs") <= {partition(1)}, plan.text


def test_substrings_are_looked_for_within_the_time(filled_pool: StoragePool) -> None:
    filters = LogFilters(contains="RARE", start_time=FIRST + 2 * DAY, end_time=FIRST + 3 * DAY)
    plan, of_frames = reversed(plans_of(filled_pool, lambda uow: uow.logs.list(filters)))
    assert of_frames.read_whole == OF_FRAMES
    assert plan.relations("logs") == {partition(2)}, plan.text
