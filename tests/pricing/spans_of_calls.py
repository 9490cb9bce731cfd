"""Spans of model calls, and prices of their model."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from observatory_storage import StoragePool
from observatory_storage.models import Trace, TraceSpan
from observatory_storage.pricing.price import Price
from observatory_storage.pricing.stored_prices import PRICES, row_of_price
from tests.writers.helpers import Row, a_span, fetch

__all__ = ["a_call", "cost_and_source", "costs", "price_model", "totals"]


def a_call(trace: int = 1, number: int = 1, **columns: Any) -> Row:
    """A call of 1,000 input tokens and 100 output tokens."""
    call = {"model": "m", "prompt_tokens": 1000, "completion_tokens": 100}
    return a_span(trace, number, **{**call, **columns})


def price_model(pool: StoragePool, dollars: int, **columns: Any) -> None:
    """Replace all prices: input costs so much per million tokens, and output ten times as much."""
    rates: Any = {"input": Decimal(dollars), "output": Decimal(10 * dollars)}
    price = Price(**{"model": "m", "rates": rates, **columns})
    with pool.engine.begin() as connection:
        connection.execute(sa.delete(PRICES))
        connection.execute(sa.insert(PRICES), [row_of_price(price)])
    pool.prices.forget()


def cost_and_source(row: Row) -> tuple[Decimal | None, str | None]:
    return row["total_cost_usd"], row["cost_source"]


def costs(pool: StoragePool) -> list[tuple[Decimal | None, str | None]]:
    """Cost and source of each span, by span id."""
    return [cost_and_source(row) for row in fetch(pool, TraceSpan, "span_id")]


def totals(pool: StoragePool) -> list[Decimal | None]:
    """The cost of each trace, by trace id."""
    return [row["total_cost_usd"] for row in fetch(pool, Trace, "trace_id")]
