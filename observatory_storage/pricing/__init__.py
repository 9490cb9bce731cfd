"""Prices of models: what a call costs, where prices come from, and which one applies."""

from observatory_storage.pricing.price import (
    CallUsage,
    Costs,
    Price,
    PriceTier,
    cost_of,
)
from observatory_storage.pricing.price_book import PriceBook
from observatory_storage.pricing.price_table import PriceTable, service_tier_of

__all__ = [
    "CallUsage",
    "Costs",
    "Price",
    "PriceBook",
    "PriceTable",
    "PriceTier",
    "cost_of",
    "service_tier_of",
]
