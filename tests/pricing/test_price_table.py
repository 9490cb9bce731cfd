"""Which of several prices applies to a call."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from observatory_storage import Price, PriceTable
from observatory_storage.pricing import service_tier_of, tier_of

NOON = datetime(2026, 3, 14, 12, tzinfo=UTC)
PACKAGE = "genai-prices 1.0"


def price(model: str, number: int, **columns: Any) -> Price:
    return Price(model, {"input": Decimal(number)}, **columns)


def found(
    *prices: Price,
    provider: str | None = "openai",
    model: str | None = "gpt-4o",
    response: str | None = None,
    tier: str | None = None,
    at: datetime = NOON,
) -> int | None:
    """The number of the price that applies, whatever the order of the prices."""
    numbers = set()
    for given in (prices, prices[::-1]):
        one = PriceTable(given).price_of(provider, model, response, tier, at)
        numbers.add(None if one is None else int(one.rates["input"]))
    (number,) = numbers
    return number


def test_a_price_is_valid_from_its_first_moment_until_before_its_last() -> None:
    prices = (
        price("gpt-4o", 1, valid_to=NOON),
        price("gpt-4o", 2, valid_from=NOON, valid_to=NOON + timedelta(1)),
    )
    moment = timedelta(microseconds=1)
    assert found(*prices, at=NOON - moment) == 1
    assert found(*prices, at=NOON) == 2
    assert found(*prices, at=NOON + timedelta(1) - moment) == 2
    assert found(*prices, at=NOON + timedelta(1)) is None


def test_your_own_price_comes_first_whatever_it_matches_by() -> None:
    own = price("gpt", 1, aliases=["gpt-*"])
    of_package = price("gpt-4o", 2, provider="openai", source=PACKAGE)
    assert found(own, of_package) == 1
    assert found(price("gpt-4o", 1, valid_to=NOON), of_package) == 2


def test_the_requested_model_comes_before_the_responding_one() -> None:
    prices = (price("gpt-4o", 1), price("gpt-4o-2024-08-06", 2))
    assert found(*prices, response="gpt-4o-2024-08-06") == 1
    assert found(*prices, model="prod", response="gpt-4o-2024-08-06") == 2
    assert found(*prices, model=None, response="gpt-4o") == 1


def test_names_come_before_aliases_and_longer_patterns_before_shorter_ones() -> None:
    prices = [
        price("a", 1, aliases=["g*"]),
        price("b", 2, aliases=["gpt-*"]),
        price("c", 3, aliases=["*4o"]),
        price("d", 4, aliases=["gpt-4o"]),
        price("gpt-4o", 5),
    ]
    assert found(*prices) == 5
    assert found(*prices[:4]) == 4
    assert found(*prices[:3]) == 2
    assert found(prices[0], prices[2]) == 3
    assert found(prices[0]) == 1
    assert found(price("x", 1, aliases=["gpt-*-mini"])) is None
    assert found(price("x", 1, aliases=["GPT.4o"])) is None


def test_the_provider_comes_before_any() -> None:
    prices = (price("gpt-4o", 1), price("gpt-4o", 2, provider="openai"))
    assert found(*prices) == 2
    assert found(*prices, provider="groq") == 1
    assert found(prices[1], provider="groq") is None
    # The name counts for more than the provider.
    assert found(price("g", 1, provider="openai", aliases=["gpt*"]), price("gpt-4o", 2)) == 2


def test_a_part_of_a_provider_has_the_prices_of_the_whole() -> None:
    prices = (price("gemini", 1, provider="gcp.gen_ai"), price("gemini", 2, provider="gcp.gemini"))
    assert found(*prices, provider="gcp.gemini", model="gemini") == 2
    assert found(*prices, provider="gcp.vertex_ai", model="gemini") == 1


def test_a_call_of_an_unknown_provider_costs_what_the_maker_takes() -> None:
    prices = (price("gpt-4o", 1, provider="groq"), price("gpt-4o", 2, provider="openai"))
    assert found(*prices, provider=None) == 2
    assert found(prices[0], provider=None) is None
    assert found(*prices, price("gpt-4o", 3), provider=None) == 3


def test_a_service_tier_has_prices_of_its_own() -> None:
    prices = (price("gpt-4o", 1), price("gpt-4o", 2, service_tier="batch"))
    assert found(*prices, tier="batch") == 2
    assert found(*prices) == 1
    assert found(*prices, tier="flex") is None


@pytest.mark.parametrize(
    ("attributes", "tier"),
    [
        ({}, None),
        ({"openai.request.service_tier": "auto"}, None),
        ({"gen_ai.openai.request.service_tier": "flex"}, "flex"),
        (
            {
                "openai.request.service_tier": "flex",
                "openai.response.service_tier": "default",
            },
            None,
        ),
        ({"anthropic.response.service_tier": " Batch "}, "batch"),
        ({"gen_ai.response.service_tier": 7}, None),
    ],
)
def test_the_tier_that_served_a_call_comes_before_the_requested_one(
    attributes: dict[str, Any], tier: str | None
) -> None:
    assert tier_of(attributes) == tier


def test_spellings_of_the_standard_tier_are_one() -> None:
    spellings = ("", "Default", "auto", "standard_only", " on_demand", None)
    assert [service_tier_of(spelling) for spelling in spellings] == [None] * 6


def test_many_names_are_looked_up_without_an_end() -> None:
    table = PriceTable([price("gpt-4o", 1)])
    for number in range(10_000):
        assert table.price_of("openai", f"m{number}", None, None, NOON) is None
    assert table.price_of("openai", "gpt-4o", None, None, NOON) is not None
