"""Computes the costs of spans that bring tokens and no cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Any, Final, NamedTuple

import orjson

from observatory_storage.pricing import CallUsage, PriceTable, cost_of, tier_of
from observatory_storage.rows import Row
from observatory_storage.storing.usage_once import COMPUTED, Usage
from observatory_storage.tables import SPANS

__all__ = [
    "PricedCall",
    "priced",
    "with_costs",
    "without_computed_cost",
]

_TOKENS, _COST, _SOURCE, _ATTRIBUTES, _DETAILS = SPANS.positions(
    "total_tokens", "total_cost_usd", "cost_source", "attributes", "token_details"
)
_COSTS: Final = SPANS.positions("prompt_cost_usd", "completion_cost_usd", "total_cost_usd")
_call_of = itemgetter(*SPANS.positions("provider", "model", "response_model", "start_time"))
_tokens_of = itemgetter(*SPANS.positions("prompt_tokens", "completion_tokens", "total_tokens"))
_NAMED: Final = b"service_tier"


def with_costs(rows: Sequence[Row], prices: PriceTable | None) -> Sequence[Row]:
    """The spans, with the costs of those that bring tokens and no cost, where a price is known.

    A cost of zero for tokens says that the sender did not know the price. A span that was read and
    is written again gets its computed cost anew.

    Args:
        rows: prepared spans.
        prices: the prices, if there are any.
    """
    if prices is None:
        return rows
    changed: list[Row] | None = None
    for index, row in enumerate(rows):
        values = row[1]
        if not values[_TOKENS] or (values[_COST] and values[_SOURCE] != COMPUTED):
            continue
        provider, model, response_model, start = _call_of(values)
        tier = None
        if _NAMED in values[_ATTRIBUTES]:
            tier = tier_of(_decoded(values[_ATTRIBUTES]))
        price = prices.price_of(provider, model, response_model, tier, start)
        if price is None:
            continue
        prompt, completion, total = _tokens_of(values)
        usage = CallUsage(prompt, completion, total, _decoded(values[_DETAILS]))
        costs = cost_of(price, usage)
        if costs is None:
            continue
        priced_values = list(values)
        for position, cost in zip(_COSTS, costs, strict=True):
            priced_values[position] = cost
        priced_values[_SOURCE] = COMPUTED
        if changed is None:
            changed = list(rows)
        changed[index] = row._replace(values=tuple(priced_values))
    return rows if changed is None else changed


def _decoded(encoded: bytes | None) -> Any:
    # Faster than `jsonb.decode`: no integer here needs more than 64 bits.
    return None if encoded is None else orjson.loads(encoded[1:])


class PricedCall(NamedTuple):
    """What the price of a stored span depends on, beside its usage."""

    provider: str | None
    model: str | None
    response_model: str | None
    service_tier: str | None
    start_time: datetime


def priced(usage: Usage, call: PricedCall, prices: PriceTable | None) -> Usage:
    """The usage that a stored span reports, with its computed cost as the prices are now.

    A cost that was told stays. Without a price, the cost is unknown.

    Args:
        usage: what the span reports.
        call: what was called.
        prices: the prices, if there are any.
    """
    if usage.tells_cost:
        return usage
    unpriced = without_computed_cost(usage)
    if prices is None or not usage.total_tokens:
        return unpriced
    price = prices.price_of(*call)
    costs = None if price is None else cost_of(price, _call_usage(usage))
    if costs is None:
        return unpriced
    return usage._replace(
        prompt_cost_usd=costs.prompt,
        completion_cost_usd=costs.completion,
        total_cost_usd=costs.total,
        cost_source=COMPUTED,
    )


def without_computed_cost(usage: Usage) -> Usage:
    """The usage without the cost that was computed for it."""
    if usage.cost_source != COMPUTED:
        return usage
    return usage._replace(
        prompt_cost_usd=None, completion_cost_usd=None, total_cost_usd=None, cost_source=None
    )


def _call_usage(usage: Usage) -> CallUsage:
    details = usage.token_details if isinstance(usage.token_details, Mapping) else None
    return CallUsage(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, details)
