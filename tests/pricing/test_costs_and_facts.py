"""Computed costs when the facts of stored spans are read again."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from observatory_storage import CopyWriter, StoragePool
from observatory_storage.models import TraceSpan
from tests.pricing.spans_of_calls import costs, price_model, totals
from tests.writers.helpers import Row, a_span, fetch
from tests.writers.trace_model import check_traces

COST = Decimal("0.002")
TOLD = Decimal("0.5")
CALL = {
    "gen_ai.request.model": "m",
    "gen_ai.usage.input_tokens": 1000,
    "gen_ai.usage.output_tokens": 100,
}


def call(trace: int = 1, number: int = 1, parent: str | None = None, /, **attributes: Any) -> Row:
    return a_span(trace, number, parent_span_id=parent, attributes={**CALL, **attributes})


def forget(pool: StoragePool, **columns: Any) -> None:
    """Store the spans as an earlier version did."""
    with pool.engine.begin() as connection:
        connection.execute(sa.update(TraceSpan).values(**columns))


@pytest.fixture
def writer(pool: StoragePool) -> CopyWriter:
    price_model(pool, 1)
    return CopyWriter(pool)


def test_computed_costs_stay_even_if_prices_have_changed(
    pool: StoragePool, writer: CopyWriter
) -> None:
    zero: Row = {"gen_ai.usage.cost": 0}
    told: Row = {"gen_ai.usage.cost": 0.5}
    writer.write_spans([call(1, 1), call(2, 2, **zero), call(3, 3, **told), a_span(4, 4)])
    writer.write_spans([call(5, 5, **{"user.id": "u"}), call(5, 6, f"{5:016x}", **told)])
    before = fetch(pool, TraceSpan, "span_id")
    assert costs(pool)[:3] == [(COST, "computed"), (COST, "computed"), (TOLD, "told")]
    price_model(pool, 7)
    assert pool.refresh_facts().changed_spans == 0
    assert fetch(pool, TraceSpan, "span_id") == before


def test_a_cost_is_computed_again_if_its_tokens_were_not_known(
    pool: StoragePool, writer: CopyWriter
) -> None:
    writer.write_spans([call(1, 1), call(1, 2)])
    forget(pool, prompt_tokens=400, total_tokens=500)
    price_model(pool, 2)
    assert pool.refresh_facts().changed_spans == 2
    assert costs(pool) == [(2 * COST, "computed")] * 2
    assert totals(pool) == [4 * COST]
    check_traces(pool)
    assert pool.refresh_facts().changed_spans == 0


def test_a_cost_is_computed_if_the_model_was_not_known(
    pool: StoragePool, writer: CopyWriter
) -> None:
    writer.write_spans([call()])
    forget(pool, model=None, total_cost_usd=None, cost_source=None)
    assert pool.refresh_facts().changed_spans == 1
    assert costs(pool) == [(COST, "computed")]
    # A model without a price takes the cost with it.
    forget(pool, model="other")
    price_model(pool, 1, model="x")
    assert pool.refresh_facts().changed_spans == 1
    assert costs(pool) == [(None, None)]


def test_a_told_cost_that_is_read_only_now_replaces_the_computed_one(
    pool: StoragePool, writer: CopyWriter
) -> None:
    writer.write_spans([call()])
    with_cost = {**CALL, "gen_ai.usage.cost": 0.5}
    forget(pool, attributes=with_cost)
    assert pool.refresh_facts().changed_spans == 1
    assert costs(pool) == [(TOLD, "told")]
    assert totals(pool) == [TOLD]


def test_costs_that_an_earlier_version_stored_stay_as_they_are(
    pool: StoragePool, writer: CopyWriter
) -> None:
    told: Row = {"gen_ai.usage.cost": 0.5}
    writer.write_spans([call(1, 1, **told)])
    forget(pool, cost_source=None)
    assert pool.refresh_facts().changed_spans == 0
    assert costs(pool) == [(TOLD, None)]
