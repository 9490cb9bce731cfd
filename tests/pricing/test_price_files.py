"""Prices from files: what is accepted, what errors say, and what is stored."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from observatory_storage import (
    LoadedPrices,
    ModelPricing,
    StoragePool,
    ValidationError,
    load_prices,
)
from observatory_storage.pricing.price_files import prices_of_document, read_price_file
from tests.pricing.price_list import PRICES, price_file
from tests.writers.helpers import fetch

RATES = {"input": 1, "output": 2}


def entry(**columns: Any) -> dict[str, Any]:
    return {"model": "m", "usd_per_million_tokens": RATES, **columns}


def tier(**columns: Any) -> dict[str, Any]:
    own = {"above_input_tokens": 10, "applies_to": "call", "usd_per_million_tokens": RATES}
    return {**own, **columns}


def load(pool: StoragePool, *entries: Any, replace: bool = False) -> LoadedPrices:
    return load_prices(pool, _file(entries), replace=replace)


_folder: list[Path] = []


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path) -> None:
    _folder[:] = [tmp_path]


def _file(entries: Any) -> Path:
    path = _folder[0] / "given.json"
    path.write_text(json.dumps({"prices": list(entries)}))
    return path


def test_a_file_says_what_a_price_is(tmp_path: Path) -> None:
    prices = read_price_file(price_file(tmp_path))
    assert len(prices) == PRICES.count("usd_per_million_tokens:") - 4
    first, second, *_ = prices
    assert (first.valid_from, first.valid_to) == (None, datetime(2026, 3, 15, tzinfo=UTC))
    assert second.valid_from == first.valid_to
    assert second.rates["cache_read"] == Decimal("0.333333333333333333333")
    google = next(price for price in prices if price.model == "gemini-pro")
    assert google.provider == "gcp.gen_ai"
    assert [tier.above for tier in google.tiers] == [128_000, 300_000]


@pytest.mark.parametrize(
    ("given", "moment"),
    [
        ("2026-08-01", datetime(2026, 8, 1, tzinfo=UTC)),
        ("2026-08-01T10:00:00Z", datetime(2026, 8, 1, 10, tzinfo=UTC)),
        (
            datetime(2026, 8, 1, 2, tzinfo=timezone(timedelta(hours=2))),
            datetime(2026, 8, 1, tzinfo=UTC),
        ),
    ],
)
def test_a_date_begins_at_midnight_in_utc(given: Any, moment: datetime) -> None:
    (price,) = prices_of_document({"prices": [entry(valid_from=given)]})
    assert price.valid_from == moment


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("prices", "prices='prices': must be the only key of the file, with a list"),
        ({"prices": []} | {"price": 1}, "must be the only key"),
        ({"prices": {}}, "prices={}: must be a list of entries"),
        ({"prices": [1]}, r"prices\[0\]=1: must be a mapping with any of provider, model"),
        ([entry(modle="x")], r"prices\[0\].modle='x': is not a known key; did you mean model\?"),
        ([entry(), entry(model="")], r"prices\[1\].model='': must be a name"),
        ([entry(model=7)], r"prices\[0\].model=7: must be a name"),
        ([entry(model="gpt-*")], r"\[0\].model='gpt-\*': must be the name of one .* into aliases"),
        ([entry(model="m" * 1025)], r"prices\[0\].model='m.*at most 1024 bytes"),
        ([entry(aliases=["é" * 513])], r"prices\[0\].aliases\[0\]='é.*at most 1024 bytes"),
        ([entry(model="a\0b")], r"prices\[0\].model='a\\x00b': must not have a NUL"),
        ([entry(model="\ud800")], r"prices\[0\].model='\\ud800': must not have a lone surrogate"),
        ([entry(provider="p\udfff")], r"prices\[0\].provider='p\\udfff': .* lone surrogate"),
        ([entry(aliases=["\ud800"])], r"prices\[0\].aliases\[0\]='\\ud800': .* lone surrogate"),
        ([entry(service_tier="\ud800")], r"prices\[0\].service_tier='\\ud800': .* surrogate"),
        ([entry(provider="LangChain")], r"prices\[0\].provider='LangChain': is a framework"),
        ([entry(aliases="x")], r"prices\[0\].aliases='x': must be a list of names"),
        ([entry(aliases=["a", "*"])], r"aliases\[1\]='\*': would match every model"),
        (
            [entry(usd_per_million_tokens={"inptu": 1})],
            r"usd_per_million_tokens.inptu=1: is not a known key; did you mean input\?",
        ),
        (
            [entry(usd_per_million_tokens={"input": -1})],
            r"prices\[0\].usd_per_million_tokens.input=-1: must be from 0 to 1,000,000,000",
        ),
        ([entry(usd_per_million_tokens={"input": True})], "must be a number of US dollars"),
        ([entry(usd_per_million_tokens={"input": "much"})], "must be a number of US dollars"),
        ([entry(usd_per_million_tokens={"input": float("nan")})], "must be from 0 to"),
        ([entry(usd_per_million_tokens={"input": "1e-31"})], "at most 30 decimals"),
        ([entry(usd_per_million_tokens={})], "usd_per_million_tokens={}: must not be empty"),
        ([{"model": "m"}], "usd_per_million_tokens=None: must not be empty"),
        ([entry(usd_per_request=[])], "usd_per_request=.*must be a number"),
        ([entry(valid_from="soon")], "valid_from='soon': must be a date, or a time with"),
        ([entry(valid_from="2026-01-01T00:00:00")], "must have a time zone, such as Z"),
        ([entry(valid_from=2026)], "valid_from=2026: must be a date"),
        (
            [entry(valid_from="9999-12-31T23:59:59-05:00")],
            r"prices\[0\].valid_from='9999-12-31T23:59:59-05:00': must be within the years 1 to",
        ),
        (
            [entry(valid_to=datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))))],
            r"prices\[0\].valid_to=.*: must be within the years 1 to 9999 in UTC",
        ),
        (
            [entry(valid_from="2026-01-02", valid_to="2026-01-02")],
            r"prices\[0\].valid_to=.*must be after valid_from=2026-01-02",
        ),
        ([entry(tiers={})], r"tiers={}: must be a list of tiers"),
        ([entry(tiers=[tier(above_input_tokens=-1)])], r"tiers\[0\].above_input_tokens=-1: must"),
        ([entry(tiers=[tier(applies_to="all")])], "applies_to='all': must be call or excess"),
        ([entry(tiers=[tier(usd_per_million_tokens={})])], "must not be empty"),
        (
            [entry(tiers=[tier(applies_to="excess")])],
            r"tiers\[0\].usd_per_million_tokens.output=.*must be a price of input tokens",
        ),
        (
            [entry(tiers=[tier(), tier()])],
            r"tiers\[1\].above_input_tokens=10: must not be that of prices\[0\].tiers\[0\]",
        ),
    ],
)
def test_an_error_names_entry_field_and_value(given: Any, message: str) -> None:
    document = {"prices": given} if isinstance(given, list) else given
    with pytest.raises(ValidationError, match=message):
        prices_of_document(document)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("prices.txt", "", r"path=.*must end in .yaml, .yml, .toml, .json"),
        ("prices.yaml", "prices: [", "path=.*line 1, column 10: is not YAML"),
        ("prices.yaml", "prices: []\nprices: []", "line 2: the key is there twice"),
        ("prices.json", "{", "is not JSON"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        read_price_file(price_file(tmp_path, text, name))
    with pytest.raises(ValidationError, match="cannot be read: No such file"):
        read_price_file(tmp_path / "none.yaml")


def test_loading_again_changes_nothing(pool: StoragePool, tmp_path: Path) -> None:
    path = price_file(tmp_path)
    first = load_prices(pool, path)
    assert first == LoadedPrices("user", 7, 7, 0, 0)
    before = fetch(pool, ModelPricing)
    assert load_prices(pool, path) == LoadedPrices("user", 7, 0, 0, 0)
    assert fetch(pool, ModelPricing) == before


def test_a_price_replaces_the_one_of_its_start(pool: StoragePool) -> None:
    load(pool, entry(), entry(model="other"))
    ended = entry(valid_to="2026-03-15")
    new = entry(valid_from="2026-03-15", usd_per_million_tokens={"input": 5})
    loaded = load(pool, ended, new)
    assert (loaded.new, loaded.changed, loaded.removed) == (1, 1, 0)
    assert load(pool, new, ended, replace=True).removed == 1
    assert [row["model"] for row in fetch(pool, ModelPricing)] == ["m", "m"]


def test_prices_of_one_time_are_refused_by_both_their_names(pool: StoragePool) -> None:
    whole = entry(provider="openai")
    with pytest.raises(ValidationError) as within_the_file:
        load(pool, whole, entry(model="x"), entry(provider="OpenAI", valid_from="2026-01-01"))
    text = str(within_the_file.value)
    assert text.startswith("prices[2].valid_from=")
    assert "prices[2] (openai m from 2026-01-01T00:00:00+00:00)" in text
    assert "prices[0] (openai m from the beginning)" in text
    assert fetch(pool, ModelPricing) == []

    load(pool, whole)
    with pytest.raises(ValidationError) as with_stored:
        load(pool, entry(provider="openai", valid_from="2026-01-01"))
    text = str(with_stored.value)
    assert text.startswith("prices[0].valid_from=")
    assert "stored (openai m from the beginning)" in text
    assert "give the earlier one a valid_to" in text
    with pytest.raises(ValidationError, match=r"prices\[1\].valid_from=None: overlaps"):
        load(pool, entry(valid_to="2026-01-02"), entry(valid_to="2026-01-03", model="M"))


def test_the_same_time_of_other_keys_is_no_overlap(pool: StoragePool) -> None:
    other = (entry(provider="openai"), entry(service_tier="batch"), entry(model="m2"))
    assert load(pool, entry(), *other).new == 4
    # Replaced as a whole, they may not even overlap with what goes.
    assert load(pool, entry(valid_from="2026-01-01"), replace=True).removed == 4


def test_what_is_stored_reads_back_as_the_file_says(pool: StoragePool, tmp_path: Path) -> None:
    path = price_file(tmp_path)
    load_prices(pool, path)
    table = pool.prices.table()
    assert table is not None
    in_order = sorted(table.prices, key=repr)
    assert in_order == sorted(read_price_file(path), key=repr)
