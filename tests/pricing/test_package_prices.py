"""The prices of genai-prices as ours, compared with what the package itself computes."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from genai_prices import Usage, calc_price

from observatory_storage import (
    CallUsage,
    ConfigError,
    CopyWriter,
    PriceTable,
    StoragePool,
    cost_of,
    load_package_prices,
    load_prices,
    recompute_costs,
)
from observatory_storage.pricing.package_prices import PACKAGE, read_package_prices
from observatory_storage.pricing.stored_prices import price_id
from tests.pricing.price_list import price_file
from tests.pricing.spans_of_calls import a_call, costs

MOMENTS = [datetime(2025, 1, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)]
# Provider as spans have it, provider of the package, a name of a model.
MODELS = [
    ("openai", "openai", "gpt-4o"),
    ("openai", "openai", "gpt-4o-2024-08-06"),
    ("openai", "openai", "gpt-4o-mini"),
    ("openai", "openai", "o3"),
    ("openai", "openai", "text-embedding-3-small"),
    ("anthropic", "anthropic", "claude-sonnet-4-6"),
    ("anthropic", "anthropic", "claude-3-5-haiku-20241022"),
    ("gcp.gemini", "google", "gemini-2.5-pro"),
    ("gcp.vertex_ai", "google", "gemini-2.5-flash"),
    ("aws.bedrock", "aws", "anthropic.claude-3-5-sonnet-20241022-v2:0"),
    ("azure.ai.openai", "azure", "gpt-4o"),
    ("mistral_ai", "mistral", "mistral-large-latest"),
    ("groq", "groq", "llama-3.3-70b-versatile"),
    ("openrouter", "openrouter", "anthropic/claude-sonnet-4"),
]


@pytest.fixture(scope="module")
def table() -> PriceTable:
    return PriceTable(read_package_prices()[1])


@pytest.mark.parametrize("moment", MOMENTS, ids=str)
@pytest.mark.parametrize("tokens", [1_000, 250_000])
@pytest.mark.parametrize("names", MODELS, ids=" ".join)
def test_calls_cost_what_the_package_says(
    table: PriceTable, names: tuple[str, str, str], tokens: int, moment: datetime
) -> None:
    provider, theirs, model = names
    price = table.price_of(provider, model, None, None, moment)
    assert price is not None
    completion = 0 if "embedding" in model else 100
    details = {"prompt_cache_read": tokens // 4} if "cache_read" in price.rates else {}
    costs = cost_of(price, CallUsage(tokens, completion, None, details))
    expected = calc_price(
        Usage(
            input_tokens=tokens,
            output_tokens=completion,
            cache_read_tokens=details.get("prompt_cache_read", 0),
        ),
        model,
        provider_id=theirs,
        genai_request_timestamp=moment,
    )
    assert costs is not None
    assert costs.total == expected.total_price


def test_service_tiers_cost_what_the_package_says(table: PriceTable) -> None:
    moment = datetime(2026, 11, 1, tzinfo=UTC)
    price = table.price_of("openai", "gpt-5.6-sol", None, "flex", moment)
    assert price is not None
    costs = cost_of(price, CallUsage(1000, 100))
    expected = calc_price(
        Usage(input_tokens=1000, output_tokens=100),
        "gpt-5.6-sol",
        provider_id="openai",
        genai_request_timestamp=moment,
        price_context={"service_tier": "flex"},
    )
    assert costs is not None
    assert costs.total == expected.total_price


def test_all_prices_are_stored_and_what_is_left_out_says_why(pool: StoragePool) -> None:
    loaded = load_package_prices(pool)
    assert loaded.source.startswith(f"{PACKAGE} ")
    assert loaded.new == loaded.prices > 1000
    assert any("depends on the time of day" in reason for reason in loaded.left_out)
    again = load_package_prices(pool)
    assert (again.new, again.changed, again.removed) == (0, 0, 0)
    stored = pool.prices.table()
    assert stored is not None
    given = read_package_prices()[1]
    assert sorted(stored.prices, key=price_id) == sorted(given, key=price_id)


def test_your_own_prices_come_before_those_of_the_package(
    pool: StoragePool, tmp_path: Path
) -> None:
    load_package_prices(pool)
    call = {"provider": "openai", "model": "gpt-4o-mini"}
    CopyWriter(pool).write_spans([a_call(1, 1, **call)])
    ((of_package, _),) = costs(pool)
    assert of_package == Decimal("0.00021")
    own = """
    prices:
      - {provider: openai, model: gpt-4o-mini, usd_per_million_tokens: {input: 1, output: 0}}
    """
    load_prices(pool, price_file(tmp_path, own), replace=True)
    assert recompute_costs(pool).changed_spans == 1
    assert costs(pool) == [(Decimal("0.001"), "computed")]
    # Neither loading removes what the other has loaded.
    assert load_package_prices(pool).removed == 0


def test_without_the_package_the_error_says_what_to_install(
    pool: StoragePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "genai_prices.data", None)
    with pytest.raises(ConfigError, match=r"pip install 'observatory-storage\[prices\]'"):
        load_package_prices(pool)
