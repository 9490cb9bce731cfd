"""The cost of spans by group, dearest first: against plain Python."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from observatory_storage import CopyWriter, StoragePool, ValidationError
from observatory_storage.repositories import CostSummary, SpanFilters
from tests.repositories.grouped import add, by_group
from tests.repositories.samples import DAY, START, Row, a_span, meets


def dearest(rows: Iterable[Row], group_by: Sequence[str]) -> list[tuple[Any, ...]]:
    """The groups, dearest first, with what was spent."""
    reporting = [
        row
        for row in rows
        if row.get("total_tokens") is not None or row.get("total_cost_usd") is not None
    ]
    found = []
    for (_, *group), members in by_group(reporting, group_by, None).items():
        cost, tokens = add(members, "total_cost_usd"), add(members, "total_tokens")
        unpriced = sum(row.get("total_cost_usd") is None for row in members)
        found.append((tuple(group), len(members), unpriced, tokens, cost))

    def place(one: tuple[Any, ...]) -> tuple[Any, ...]:
        group, _, _, tokens, cost = one
        names = ((value is None, (value or "").encode()) for value in group)
        return cost is None, -(cost or 0), tokens is None, -(tokens or 0), *names

    return sorted(found, key=place)


def facts(summary: CostSummary) -> tuple[Any, ...]:
    return (
        tuple(summary.group.values()),
        summary.span_count,
        summary.unpriced_span_count,
        summary.total_tokens,
        summary.total_cost_usd,
    )


@pytest.mark.parametrize(
    "conditions",
    [
        {},
        {"service_name": "api"},
        {"operation": "chat", "provider": "openai"},
        {"model": "large"},
        {"user_id": "ann", "environment": "test"},
        {"session_id": "s1"},
        {"gen_ai_operation": "chat", "agent_name": "planner"},
        {"user_id": "a%"},
        {"start_time": START + DAY},
        {"end_time": START + DAY, "model": "small"},
        {"start_time": START, "end_time": START},
    ],
    ids=str,
)
@pytest.mark.parametrize("group_by", [("user_id",), ("model", "session_id"), ()], ids=str)
def test_costs_are_those_of_the_spans_that_match(
    shared_pool: StoragePool,
    spans: list[Row],
    conditions: dict[str, Any],
    group_by: tuple[str, ...],
) -> None:
    filters = SpanFilters(**conditions)
    expected = dearest((row for row in spans if meets(row, filters)), group_by)
    with shared_pool.unit_of_work() as uow:
        found = uow.metrics.get_cost_summary(group_by=group_by, **conditions)
        few = uow.metrics.get_cost_summary(group_by=group_by, limit=2, **conditions)
    assert [facts(one) for one in found] == expected
    assert few == found[:2]


def test_equal_and_unknown_costs_are_ordered_by_tokens_then_name(pool: StoragePool) -> None:
    spent: list[tuple[str | None, int | None, str | None]] = [
        ("b", 5, None),
        ("a", 5, None),
        ("c", 9, None),
        ("dear", 1, "0.3"),
        ("zero", 1, "0"),
        ("tie", 3, "0.1"),
        ("tie", None, "0.2"),
        (None, 5, None),
        ("silent", None, None),
    ]
    rows = [
        a_span(
            at + 1,
            1,
            START + at * DAY,
            user_id=user,
            total_tokens=tokens,
            total_cost_usd=None if cost is None else Decimal(cost),
        )
        for at, (user, tokens, cost) in enumerate(spent)
    ]
    CopyWriter(pool).write_spans(rows)
    with pool.unit_of_work() as uow:
        found = uow.metrics.get_cost_summary(group_by=("user_id",))
        first = uow.metrics.get_cost_summary(group_by=("user_id",), limit=1)
        by_half = uow.metrics.get_cost_summary(
            group_by=("user_id",), bucket_size_secs=7 * 86_400, limit=1
        )
        with pytest.raises(ValidationError, match="limit"):
            uow.metrics.get_cost_summary(limit=-1)
        with pytest.raises(ValidationError, match="user_id"):
            uow.metrics.get_cost_summary(user_id=5)  # type: ignore[arg-type]  # what is tried here
    assert [one.group["user_id"] for one in found] == ["tie", "dear", "zero", "c", "a", "b", None]
    assert [facts(one) for one in found] == dearest(rows, ("user_id",))
    assert first == found[:1]
    assert [(one.timestamp, one.group["user_id"]) for one in by_half] == [
        (datetime(2025, 12, 29, tzinfo=UTC), "dear"),
        (datetime(2026, 1, 5, tzinfo=UTC), "tie"),
    ]
