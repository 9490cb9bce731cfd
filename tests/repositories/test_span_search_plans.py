"""What is rare in the JSON of spans is looked up, what is frequent is met by walking."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from observatory_storage import (
    CopyWriter,
    StoragePool,
    UnitOfWork,
    build_partition_indexes,
)
from observatory_storage.models import TraceSpan
from observatory_storage.repositories import (
    Page,
    SpanFilters,
    TraceFilters,
)
from tests import citus
from tests.repositories.plans import plans_of, walk_first
from tests.repositories.samples import (
    DAY,
    a_span,
)

pytestmark = citus.not_there("shards have plans of their own")

# Of late, for partitions of a day.
BEGIN = (datetime.now(UTC) - 20 * DAY).replace(hour=0, minute=0, second=0, microsecond=0)


@pytest.fixture(scope="module")
def many(shared_pool: StoragePool) -> StoragePool:
    """Enough rows for the planner to have a choice: two days that are closed, one that is not."""
    rows = [
        a_span(
            n,
            n,
            BEGIN + n * DAY / 1000,
            attributes={
                "request": f"r{n}",
                "all": True,
                "gen_ai.prompt": f"river w{n:x}z",
                "tags": [f"t{n}", 1, n / 2],
            },
            events=[{"name": "e", "timestamp": BEGIN, "attributes": {"event": f"e{n}"}}],
        )
        for n in range(1, 3000)
    ]
    CopyWriter(shared_pool).write_spans(rows)
    build_partition_indexes(shared_pool, now=BEGIN + 2 * DAY, grace=timedelta(0))
    engine = shared_pool.engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
    return shared_pool


def lists(**asked: Any) -> list[Callable[[UnitOfWork], Page[Any]]]:
    """The spans of a question, and their traces."""
    return [
        lambda uow: uow.traces.list_spans(SpanFilters(**asked)),
        lambda uow: uow.traces.list(TraceFilters(**asked)),
    ]


CLOSED: dict[str, Any] = {"start_time": BEGIN, "end_time": BEGIN + DAY}


@pytest.mark.parametrize(
    ("given", "purpose"),
    [
        ({"attributes": {"request": "r77"}}, "attributes"),
        ({"attributes": {"event": "e77"}}, "attributes"),
        ({"attributes": {"tags": "t77"}}, "attributes"),
        ({"attributes": {"tags": ["t77", 1.0, 38.5]}}, "attributes"),
        ({"text": "w4dz"}, "content"),
        ({"text": '"river w4dz"'}, "content"),
        ({"text": "w4d*"}, "content"),
        ({"text": '"river w4dz" or river/w4dz'}, "content"),
    ],
)
def test_a_rare_value_is_found_by_the_indexes_of_its_partition(
    many: StoragePool, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], purpose: str
) -> None:
    walk_first(monkeypatch, 20)
    for ask in lists(**given, **CLOSED):
        with many.unit_of_work() as uow:
            assert [
                int(row.span_id if isinstance(row, TraceSpan) else row.trace_id, 16)
                for row in ask(uow)
            ] == [77]
        plans = plans_of(many, ask)
        used = set().union(*(plan.indexes for plan in plans))
        partitions = {
            f"{table}_p{BEGIN:%Y%m%d}_{purpose}" for table in ("trace_spans", "trace_events")
        }
        assert {index.removeprefix("ix_")[:-9] for index in used if purpose in index} == partitions
        assert not {name for plan in plans for name in plan.read_whole if "spans" in name}
        relations = set().union(*(plan.relations("trace_spans") for plan in plans))
        assert relations == {f"trace_spans_p{BEGIN:%Y%m%d}"}


@pytest.mark.parametrize("given", [{"attributes": {"all": True}}, {"text": "river"}], ids=str)
@pytest.mark.parametrize("bounds", [{}, CLOSED], ids=["all", "closed"])
def test_a_frequent_value_is_found_by_reading_in_order(
    many: StoragePool,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, Any],
    bounds: dict[str, Any],
) -> None:
    walk_first(monkeypatch, 100)
    for ask in lists(**given, **bounds):
        plans = plans_of(many, ask)
        # One more for words: it looks for payload frames.
        assert len(plans) == (3 if "text" in given else 2)
        assert not [
            name for plan in plans for name in plan.indexes if name.startswith("ix_trace_spans_p")
        ]
        read_whole = {name for plan in plans for name in plan.read_whole}
        assert read_whole <= {"payload_segments", "payload_unindexed"}
        assert sum(plan.blocks for plan in plans) < 2_000
