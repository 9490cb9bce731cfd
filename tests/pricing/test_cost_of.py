"""What a call costs by one price."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observatory_storage import CallUsage, Costs, Price, PriceTier, cost_of
from observatory_storage.pricing.price import RATES, Rate

BOTH: dict[Rate, Decimal] = {"input": Decimal(3), "output": Decimal(15)}


def total(
    prompt: int | None,
    completion: int | None,
    details: Mapping[str, Any] | None = None,
    *,
    of: int | None = None,
    **price: Any,
) -> Decimal | None:
    """The cost of a call in millionths of a dollar."""
    made = Price("m", **{"rates": BOTH, **price})
    costs = cost_of(made, CallUsage(prompt, completion, of, details))
    return None if costs is None else costs.total * 1_000_000


def test_tokens_of_a_kind_without_a_price_cost_what_their_side_costs() -> None:
    details = {"prompt_cache_read": 4, "completion_reasoning": 1}
    assert total(10, 2, details) == 60
    cheaper = BOTH | {"cache_read": Decimal("0.5"), "reasoning": Decimal(0)}
    assert total(10, 2, details, rates=cheaper) == 6 * 3 + 2 + 15


def test_tokens_cached_for_an_hour_are_part_of_all_that_were_written() -> None:
    rates = BOTH | {"cache_write": Decimal(4), "cache_write_1h": Decimal(6)}
    details = {"prompt_cache_write": 8, "prompt_cache_write_1h": 3}
    assert total(10, 0, details, rates=rates) == 2 * 3 + 5 * 4 + 3 * 6
    assert total(10, 0, {"prompt_cache_write_1h": 3}, rates=rates) == 7 * 3 + 3 * 6
    assert total(10, 0, details, rates=BOTH | {"cache_write": Decimal(4)}) == 2 * 3 + 8 * 4


def test_each_token_is_priced_once_even_if_details_say_more() -> None:
    rates = BOTH | {"cache_read": Decimal(1), "input_audio": Decimal(100)}
    details = {"prompt_cache_read": 8, "prompt_audio": 5}
    assert total(10, 0, details, rates=rates) == 8 + 2 * 100
    assert total(5, 0, details, rates=rates) == 5


@pytest.mark.parametrize("count", [-1, 1.5, "7", None, True])
def test_details_that_are_no_counts_are_ignored(count: Any) -> None:
    assert total(10, 0, {"prompt_cache_read": count}, rates=BOTH | {"cache_read": Decimal(0)}) == 30


def test_a_tier_of_whole_calls_begins_above_its_number() -> None:
    tiers = (
        PriceTier(100, "call", {"input": Decimal(6), "output": Decimal(30)}),
        PriceTier(200, "call", {"input": Decimal(9)}),
    )
    assert total(100, 1, tiers=tiers) == 315
    assert total(101, 1, tiers=tiers) == 606 + 30
    # What the second tier does not name stays as the first one has it.
    assert total(201, 1, tiers=tiers) == 9 * 201 + 30
    assert total(10, 1_000, tiers=tiers) == 30 + 15_000


def test_a_tier_of_the_excess_leaves_the_tokens_below_it() -> None:
    rates = BOTH | {"cache_read": Decimal(1)}
    tiers = (PriceTier(100, "excess", {"input": Decimal(6)}),)
    assert total(101, 1, tiers=tiers) == 300 + 6 + 15
    # Cached tokens are the beginning of a prompt.
    assert total(150, 0, {"prompt_cache_read": 80}, rates=rates, tiers=tiers) == 80 + 60 + 300
    assert total(150, 0, {"prompt_cache_read": 120}, rates=rates, tiers=tiers) == 120 + 180


def test_a_request_may_cost_something_by_itself() -> None:
    assert total(0, 0, usd_per_request=Decimal("0.5")) == 500_000
    assert cost_of(Price("m", BOTH, usd_per_request=Decimal(2)), CallUsage(1, 0)) == Costs(
        Decimal("0.000003"), Decimal(0), Decimal("2.000003")
    )


def test_an_unknown_side_is_the_rest_of_the_total() -> None:
    assert total(10, None, of=12) == 60
    assert total(None, 2, of=12) == 60
    assert total(10, None) == 30
    assert total(10, None, of=5) == 30


def test_a_total_alone_is_the_input_of_a_model_without_output() -> None:
    assert total(None, None, of=10) is None
    assert total(None, None, of=10, rates={"input": Decimal(3)}) == 30
    assert total(None, None, rates={"input": Decimal(3)}) is None


def test_tokens_without_a_price_have_no_cost() -> None:
    assert total(10, 1, rates={"input": Decimal(3)}) is None
    assert total(10, 0, rates={"input": Decimal(3)}) == 30
    assert total(10, 1, rates={"output": Decimal(3)}) is None
    only_audio: dict[Rate, Decimal] = {"input_audio": Decimal(3), "output": Decimal(1)}
    assert total(10, 1, {"prompt_audio": 10}, rates=only_audio) == 31


def test_costs_are_plain_decimals() -> None:
    costs = cost_of(Price("m", {"input": Decimal("1E+6")}), CallUsage(300, 0))
    assert costs is not None
    assert str(costs.prompt) == "300"
    free = cost_of(Price("m", {"input": Decimal("0.000")}), CallUsage(300, 0))
    assert free == Costs(Decimal(0), Decimal(0), Decimal(0))


rates = st.dictionaries(
    st.sampled_from([rate for rate in RATES if rate not in BOTH]),
    st.decimals(0, 10**6, places=12),
)


@given(rates, st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_costs_are_exact_for_any_number_of_tokens(
    more: dict[Rate, Decimal], prompt: int, completion: int
) -> None:
    price = Price("m", {**BOTH, **more})
    costs = cost_of(price, CallUsage(prompt, completion))
    assert costs is not None
    assert Fraction(costs.total) == Fraction(3 * prompt + 15 * completion, 1_000_000)
