"""The prices that the package `genai-prices` brings, as prices of this package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from importlib.metadata import version
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from observatory_storage.errors import ConfigError
from observatory_storage.llm.vocabulary import provider_of
from observatory_storage.pricing.price import Price, PriceTier, Rate
from observatory_storage.pricing.service_tiers import service_tier_of

if TYPE_CHECKING:
    from genai_prices.types import ConditionalPrice, ModelInfo, ModelPrice

__all__ = ["PACKAGE", "read_package_prices"]

PACKAGE: Final = "genai-prices"
_RATE_OF: Final[dict[str, Rate]] = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "output_reasoning_mtok": "reasoning",
    "input_audio_mtok": "input_audio",
    "output_audio_mtok": "output_audio",
    "input_image_mtok": "input_image",
    "output_image_mtok": "output_image",
    "input_video_mtok": "input_video",
    "output_video_mtok": "output_video",
}
_PER_REQUEST: Final = "requests_kcount"
# What a variant of a price depends on -> it is a service tier of this name.
_TIER_KEYS: Final = ("service_tier", "processing")


def read_package_prices() -> tuple[str, list[Price], list[str]]:
    """The name and version of the package, its prices, and the models that are left out.

    Raises:
        ConfigError: the package is not installed.
    """
    try:
        from genai_prices.data import providers
    except ImportError as error:
        raise ConfigError(
            "the package genai-prices is not installed: pip install 'observatory-storage[prices]'"
        ) from error
    source = f"{PACKAGE} {version(PACKAGE)}"
    by_id = {provider.id: provider for provider in providers}
    prices: list[Price] = []
    left_out: list[str] = []
    for provider in providers:
        own = {model.id.lower() for model in provider.models}
        models = list(provider.models)
        # A provider that offers the models of others, at their prices.
        for other in provider.fallback_model_providers or ():
            added = [model for model in by_id[other].models if model.id.lower() not in own]
            own.update(model.id.lower() for model in added)
            models += added
        named = provider_of(provider.id) or provider.id
        for model in models:
            reason = _unfit(model)
            if reason is None:
                prices += _prices_of(named, model, source)
            elif model in provider.models:
                left_out.append(f"{provider.id} {model.id}: {reason}")
    return source, prices, left_out


def _unfit(model: ModelInfo) -> str | None:
    """Why the prices of a model do not fit; None if they do."""
    conditional = _conditional(model)
    if any(hasattr(each.constraint, "start_time") for each in conditional):
        return "its price depends on the time of day"
    if not any(_rates(each.prices) or _per_request(each.prices) for each in conditional):
        return "its price is not one of tokens or requests"
    return None


def _conditional(model: ModelInfo) -> Sequence[ConditionalPrice]:
    from genai_prices.types import ConditionalPrice

    if isinstance(model.prices, list):
        return model.prices
    return [ConditionalPrice(prices=model.prices)]


def _prices_of(provider: str, model: ModelInfo, source: str) -> Iterator[Price]:
    aliases = tuple(name for name in _names(model.match) if name != model.id.lower())
    # A later price is valid from its start on, the first one before all others.
    starts: dict[datetime | None, ModelPrice] = {}
    for each in _conditional(model):
        starts[_start(each.constraint) if starts else None] = each.prices
    named = Price(model=model.id, rates={}, provider=provider, aliases=aliases, source=source)
    yield from _in_time(named, starts)
    for tier, variants in _variants(model).items():
        in_time: dict[datetime | None, ModelPrice] = {}
        moments = {*starts, *variants}
        for moment in sorted(moments, key=_place):
            base = _valid(starts, moment)
            partial = _valid(variants, moment)
            if base is not None and partial is not None:
                in_time[moment] = _overridden(base, partial)
        yield from _in_time(replace(named, service_tier=tier), in_time)


def _in_time(named: Price, starts: Mapping[datetime | None, ModelPrice]) -> Iterator[Price]:
    """The named price with the values that are valid from each of the starts on."""
    ordered: list[datetime | None] = sorted(starts, key=_place)
    for start, end in pairwise([*ordered, None]):
        prices = starts[start]
        rates, per_request = _rates(prices), _per_request(prices)
        if rates or per_request is not None:
            yield replace(
                named,
                valid_from=start,
                valid_to=end,
                rates=rates,
                usd_per_request=per_request,
                tiers=_tiers(prices),
            )


def _place(moment: datetime | None) -> datetime:
    return datetime.min.replace(tzinfo=UTC) if moment is None else moment


def _start(constraint: Any) -> datetime | None:
    if constraint is None:
        return None
    day = constraint.start_date
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _valid(
    starts: Mapping[datetime | None, ModelPrice], moment: datetime | None
) -> ModelPrice | None:
    known = [start for start in starts if _place(start) <= _place(moment)]
    return starts[max(known, key=_place)] if known else None


def _variants(model: ModelInfo) -> dict[str, dict[datetime | None, ModelPrice]]:
    """The prices of service tiers, by their starts. They name only what differs."""
    found: dict[str, dict[datetime | None, ModelPrice]] = {}
    for variant in model.price_variants or ():
        if hasattr(variant.constraint, "start_time") or len(variant.when) != 1:
            continue
        ((key, value),) = variant.when.items()
        tier = service_tier_of(value) if key in _TIER_KEYS else None
        if tier is not None:
            found.setdefault(tier, {}).setdefault(_start(variant.constraint), variant.prices)
    return found


def _overridden(base: ModelPrice, partial: ModelPrice) -> ModelPrice:
    from genai_prices.types import ModelPrice

    return ModelPrice(**{**_known(base), **_known(partial)})


def _known(prices: ModelPrice) -> dict[str, Any]:
    return {key: value for key, value in vars(prices).items() if value is not None}


def _rates(prices: ModelPrice) -> dict[Rate, Decimal]:
    known = _known(prices)
    return {
        rate: getattr(known[key], "base", known[key])
        for key, rate in _RATE_OF.items()
        if key in known
    }


def _per_request(prices: ModelPrice) -> Decimal | None:
    price = _known(prices).get(_PER_REQUEST)
    base = getattr(price, "base", price)
    return None if base is None else Decimal(base) / 1000


def _tiers(prices: ModelPrice) -> tuple[PriceTier, ...]:
    """The tiers, which apply to whole calls."""
    by_start: dict[int, dict[Rate, Decimal]] = {}
    for key, value in _known(prices).items():
        if key in _RATE_OF:
            for tier in getattr(value, "tiers", ()):
                by_start.setdefault(tier.start, {})[_RATE_OF[key]] = tier.price
    return tuple(PriceTier(start, "call", rates) for start, rates in sorted(by_start.items()))


def _names(clause: Any) -> Iterator[str]:
    """The names that a clause matches, with `*` for any characters; other clauses give none."""
    for alternative in getattr(clause, "or_", (clause,)):
        if alternative is not clause:
            yield from _names(alternative)
        elif hasattr(clause, "equals"):
            yield clause.equals.lower()
        elif hasattr(clause, "starts_with"):
            yield f"{clause.starts_with.lower()}*"
        elif hasattr(clause, "ends_with"):
            yield f"*{clause.ends_with.lower()}"
        elif hasattr(clause, "contains"):
            yield f"*{clause.contains.lower()}*"
