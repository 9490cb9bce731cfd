"""Costs of stored spans are computed again: which, how far, and beside writers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from observatory_storage import (
    CopyWriter,
    RecomputedCosts,
    StoragePool,
    ValidationError,
    recompute_costs,
)
from observatory_storage.models import TraceSpan
from observatory_storage.pricing.stored_prices import PRICES
from observatory_storage.storing import cost_recompute
from tests.pricing.spans_of_calls import a_call, costs, price_model, totals
from tests.writers.helpers import START, a_span, fetch
from tests.writers.trace_model import check_traces

COST = Decimal("0.002")
TOLD = Decimal("0.5")


def test_missing_and_computed_costs_follow_the_prices(pool: StoragePool) -> None:
    spans = [
        a_call(1, 1),
        a_call(1, 2, total_cost_usd=TOLD),
        a_call(2, 3, total_cost_usd=0),
        a_call(2, 4, model="x"),
        a_span(2, 5),
    ]
    CopyWriter(pool).write_spans(spans)
    assert totals(pool) == [TOLD, Decimal(0)]
    for dollars in (1, 4):
        price_model(pool, dollars)
        cost = COST * dollars
        assert recompute_costs(pool) == RecomputedCosts(5, 2)
        assert costs(pool) == [
            *((cost, "computed"), (TOLD, "told"), (cost, "computed")),
            *((None, None), (None, None)),
        ]
        assert totals(pool) == [cost + TOLD, cost]
        check_traces(pool)
        assert recompute_costs(pool) == RecomputedCosts(5, 0)


def test_a_price_that_is_gone_takes_its_costs_with_it(pool: StoragePool) -> None:
    price_model(pool, 1)
    CopyWriter(pool).write_spans([a_call(), a_call(1, 2, total_cost_usd=TOLD)])
    price_model(pool, 1, model="other")
    assert recompute_costs(pool).changed_spans == 1
    assert costs(pool) == [(None, None), (TOLD, "told")]
    assert totals(pool) == [TOLD]


def test_without_any_prices_nothing_changes(pool: StoragePool) -> None:
    price_model(pool, 1)
    CopyWriter(pool).write_spans([a_call()])
    with pool.engine.begin() as connection:
        connection.execute(sa.delete(PRICES))
    assert recompute_costs(pool) == RecomputedCosts()
    assert costs(pool) == [(COST, "computed")]


def test_prices_of_the_time_of_each_call_apply(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_call(1, number) for number in (1, 2, 3)])
    price_model(pool, 1, valid_from=START + timedelta(seconds=2), valid_to=START + timedelta(0, 3))
    recompute_costs(pool)
    assert costs(pool) == [(None, None), (COST, "computed"), (None, None)]


def test_a_service_tier_applies_again(pool: StoragePool) -> None:
    flex = {"openai.response.service_tier": "Flex"}
    CopyWriter(pool).write_spans([a_call(1, 1, attributes=flex), a_call(1, 2)])
    price_model(pool, 1, service_tier="flex")
    recompute_costs(pool)
    assert costs(pool) == [(COST, "computed"), (None, None)]


@pytest.mark.parametrize("tier", ["flex", None])
def test_a_service_tier_is_read_as_on_write(pool: StoragePool, tier: str | None) -> None:
    response, requested = "openai.response.service_tier", "openai.request.service_tier"
    given = (
        *(1, True, ["flex"], {"flex": 1}, "", "default", "auto", " FLEX ", "other"),
        None,  # as if the attribute was not there
    )
    spans = [
        a_call(1, number, attributes={response: value, requested: "flex"})
        for number, value in enumerate(given, 1)
    ]
    spans.append(a_call(1, len(given) + 1))
    price_model(pool, 1, service_tier=tier)
    CopyWriter(pool).write_spans(spans)
    written = costs(pool)
    tiers = [*[None] * 7, "flex", "other", "flex", None]
    assert written == [(COST, "computed") if each == tier else (None, None) for each in tiers]
    assert recompute_costs(pool) == RecomputedCosts(len(spans), 0)
    assert costs(pool) == written


def test_a_call_that_several_spans_report_still_counts_once(pool: StoragePool) -> None:
    framework = {"user_id": "u", "session_id": "s", "provider": "p"}
    inside = {"parent_span_id": f"{1:016x}"}
    CopyWriter(pool).write_spans([a_call(1, 1, **framework), a_call(1, 2, **inside)])
    CopyWriter(pool).write_spans(
        [a_call(2, 3, **framework), a_call(2, 4, parent_span_id=f"{3:016x}", total_cost_usd=TOLD)]
    )
    assert costs(pool) == [(None, None), (None, None), (TOLD, "told"), (None, None)]
    for dollars in (1, 2):
        price_model(pool, dollars)
        assert recompute_costs(pool).changed_spans == 3
        computed = (COST * dollars, "computed")
        assert costs(pool) == [computed, (None, None), (TOLD, "told"), (None, None)]
        assert totals(pool) == [COST * dollars, TOLD]
        reports = fetch(pool, TraceSpan, "span_id")
        assert reports[2]["reported_cost_source"] == "computed"
        assert recompute_costs(pool).changed_spans == 0
    check_traces(pool)


def test_only_the_range_is_recomputed(pool: StoragePool) -> None:
    CopyWriter(pool).write_spans([a_call(1, number) for number in range(1, 5)])
    price_model(pool, 1)
    start = START + timedelta(seconds=2)
    assert recompute_costs(pool, start, start + timedelta(seconds=2)) == RecomputedCosts(2, 2)
    assert [cost for cost, _ in costs(pool)] == [None, COST, COST, None]


def test_a_bounded_run_is_continued(pool: StoragePool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_recompute, "_SPANS_AT_A_TIME", 3)
    same = START + timedelta(hours=1)
    spans = [a_call(number, number) for number in range(1, 6)]
    spans += [a_call(number, number, start_time=same, end_time=None) for number in range(6, 11)]
    CopyWriter(pool).write_spans(spans)
    price_model(pool, 1)
    first = recompute_costs(pool, max_spans=4)
    assert (first.spans, first.changed_spans) == (4, 4)
    # Those that start together are not divided.
    second = recompute_costs(pool, first.next_start, max_spans=2)
    assert (second.spans, second.changed_spans) == (6, 6)
    assert recompute_costs(pool, second.next_start) == RecomputedCosts()
    assert totals(pool) == [COST] * 10


def test_an_interrupted_run_is_continued(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost_recompute, "_SPANS_AT_A_TIME", 2)
    CopyWriter(pool).write_spans([a_call(number, number) for number in range(1, 8)])
    price_model(pool, 1)
    reached: list[RecomputedCosts] = []

    def stop(so_far: RecomputedCosts) -> None:
        reached.append(so_far)
        if len(reached) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recompute_costs(pool, progress=stop)
    assert sum(cost is not None for cost in totals(pool)) == 4
    rest = recompute_costs(pool, reached[-1].next_start)
    assert rest.changed_spans == 3
    assert totals(pool) == [COST] * 7


def test_it_runs_beside_writers_and_beside_itself(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost_recompute, "_SPANS_AT_A_TIME", 10)
    CopyWriter(pool).write_spans([a_call(n % 7 + 1, n) for n in range(1, 100)])
    price_model(pool, 2)

    def write() -> None:
        for number in range(1, 20):
            CopyWriter(pool).write_spans([a_call(n % 7 + 1, n) for n in range(number, 200, 17)])

    with ThreadPoolExecutor(4) as threads:
        actions = (write, write, lambda: recompute_costs(pool), lambda: recompute_costs(pool))
        for done in [threads.submit(action) for action in actions]:
            done.result()
    recompute_costs(pool)
    assert set(costs(pool)) == {(2 * COST, "computed")}
    check_traces(pool)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start": datetime(2026, 1, 1)}, "start=.*must have a time zone"),  # noqa: DTZ001
        (
            {"start": datetime(2026, 1, 2, tzinfo=UTC), "end": datetime(2026, 1, 1, tzinfo=UTC)},
            "end=.*must not be before start=2026-01-02",
        ),
        ({"max_spans": 0}, "max_spans=0: must be a positive integer"),
    ],
)
def test_bad_arguments_are_refused(
    pool: StoragePool, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        recompute_costs(pool, **arguments)
