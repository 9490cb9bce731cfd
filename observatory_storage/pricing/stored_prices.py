"""Prices as rows of `model_pricing`."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa

from observatory_storage.models import ModelPricing
from observatory_storage.pricing.price import RATES, Price, PriceTier

__all__ = ["PRICES", "origin_of", "price_id", "price_of_row", "read_prices", "row_of_price"]

PRICES: Final[sa.Table] = ModelPricing.__table__  # type: ignore[assignment]  # it is a Table
_COLUMN_OF: Final = {rate: f"{rate}_usd_per_mtok" for rate in RATES}
_NAMESPACE: Final = uuid.UUID("0d0f0c3b-3c4d-5b0e-9a53-6f6d3c2f9e11")


def origin_of(source: str) -> str:
    """The source without the version: the prices of a package replace those of its last version."""
    return source.partition(" ")[0]


def price_id(price: Price) -> uuid.UUID:
    """The key of a price: a price of the same key replaces it."""
    parts: Sequence[str | None] = (
        origin_of(price.source),
        price.provider,
        price.model.lower(),
        price.service_tier,
        None if price.valid_from is None else price.valid_from.isoformat(),
    )
    return uuid.uuid5(_NAMESPACE, repr(parts))


def row_of_price(price: Price) -> dict[str, Any]:
    """The columns of a price, except for the time of loading."""
    return {
        "id": price_id(price),
        "source": price.source,
        "provider": price.provider,
        "model": price.model,
        "aliases": list(price.aliases),
        "service_tier": price.service_tier,
        "valid_from": price.valid_from,
        "valid_to": price.valid_to,
        **{column: price.rates.get(rate) for rate, column in _COLUMN_OF.items()},
        "usd_per_request": price.usd_per_request,
        "tiers": [_json_of(tier) for tier in price.tiers],
    }


def _json_of(tier: PriceTier) -> dict[str, Any]:
    rates = {rate: format(value, "f") for rate, value in tier.rates.items()}
    return {
        "above_input_tokens": tier.above,
        "applies_to": tier.applies_to,
        "usd_per_million_tokens": rates,
    }


def price_of_row(row: Mapping[str, Any] | sa.RowMapping) -> Price:
    """The price that a row of `model_pricing` is."""
    return Price(
        source=row["source"],
        provider=row["provider"],
        model=row["model"],
        aliases=tuple(row["aliases"]),
        service_tier=row["service_tier"],
        valid_from=row["valid_from"],
        valid_to=row["valid_to"],
        rates={rate: row[column] for rate, column in _COLUMN_OF.items() if row[column] is not None},
        usd_per_request=row["usd_per_request"],
        tiers=tuple(
            PriceTier(
                above=tier["above_input_tokens"],
                applies_to=tier["applies_to"],
                rates={
                    rate: Decimal(value) for rate, value in tier["usd_per_million_tokens"].items()
                },
            )
            for tier in row["tiers"]
        ),
    )


def read_prices(connection: sa.Connection) -> list[Price]:
    """All stored prices, in no order."""
    return [price_of_row(row) for row in connection.execute(_READ).mappings()]


_READ: Final = sa.select(PRICES)
