"""Prices of models: what a call costs, where prices come from, and which one applies."""

from observatory_storage.pricing.call_costs import CallUsage, Costs, cost_of
from observatory_storage.pricing.price import Price, PriceTier
from observatory_storage.pricing.price_book import PriceBook
from observatory_storage.pricing.price_loading import (
    LoadedPrices,
    load_package_prices,
    load_prices,
)
from observatory_storage.pricing.price_table import PriceTable
from observatory_storage.pricing.service_tiers import (
    SERVICE_TIERS,
    STANDARD_TIERS,
    service_tier_of,
    stored_tier,
    tier_of,
)

__all__ = [
    "SERVICE_TIERS",
    "STANDARD_TIERS",
    "CallUsage",
    "Costs",
    "LoadedPrices",
    "Price",
    "PriceBook",
    "PriceTable",
    "PriceTier",
    "cost_of",
    "load_package_prices",
    "load_prices",
    "service_tier_of",
    "stored_tier",
    "tier_of",
]
