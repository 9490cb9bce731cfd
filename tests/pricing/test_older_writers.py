"""Rows of writers that know nothing of the source of a cost."""

from __future__ import annotations

from decimal import Decimal

import sqlalchemy as sa

from observatory_storage import CopyWriter, StoragePool, recompute_costs
from observatory_storage.models import TraceSpan
from tests.pricing.spans_of_calls import a_call, costs, price_model, totals
from tests.writers.helpers import fetch

COST = Decimal("0.002")
TOLD = Decimal("0.5")


def test_a_cost_without_a_source_was_told(pool: StoragePool) -> None:
    inside = {"parent_span_id": f"{2:016x}"}
    CopyWriter(pool).write_spans(
        [
            a_call(1, 1, total_cost_usd=TOLD),
            a_call(2, 2, total_cost_usd=TOLD),
            a_call(2, 3, user_id="u", provider="p", **inside),
        ]
    )
    forgotten = {"cost_source": None, "reported_cost_source": None}
    with pool.engine.begin() as connection:
        connection.execute(sa.update(TraceSpan).values(forgotten))
    price_model(pool, 1)
    # Of the third span, only what it reports changes: the told cost of its call counts.
    assert recompute_costs(pool).changed_spans == 1
    assert costs(pool) == [(TOLD, None), (None, None), (TOLD, None)]
    assert fetch(pool, TraceSpan, "span_id")[2]["reported_cost_source"] == "computed"
    assert totals(pool) == [TOLD, TOLD]
    assert recompute_costs(pool).changed_spans == 0
