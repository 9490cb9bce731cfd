"""All prices, and which of them applies to a call."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple

from observatory_storage.pricing.price import Price

__all__ = ["PriceTable"]

_MOST_KNOWN: Final = 4096
_ALWAYS: Final = datetime.min.replace(tzinfo=UTC)
# OpenTelemetry's values for a part of a provider's services -> the value for all of them.
_FAMILY: Final = {
    "gcp.gemini": "gcp.gen_ai",
    "gcp.vertex_ai": "gcp.gen_ai",
    "azure.ai.inference": "azure.ai.openai",
}
# A call of an unknown provider is priced as if the maker of the model had served it.
_MAKERS: Final = (
    *("openai", "anthropic", "gcp.gen_ai", "gcp.gemini", "gcp.vertex_ai", "mistral_ai", "cohere"),
    *("deepseek", "x_ai", "moonshot_ai"),
)


class _Named(NamedTuple):
    """The prices of one name, newest first."""

    rank: tuple[object, ...]
    provider: str | None
    service_tier: str | None
    prices: list[Price]


class PriceTable:
    """Finds the price of a call.

    Your own prices come before those of packages. Among them, the requested model comes before the
    one that responded; the name of a model before its aliases, and aliases without ``*`` before
    others, of which the longest comes first; prices of the provider before those of any. Names
    match in upper and lower case. A price whose time does not include the start of the call is
    passed over.

    It never changes, so threads can share it.

    Args:
        prices: the prices.
    """

    def __init__(self, prices: Iterable[Price]) -> None:
        self.prices: Sequence[Price] = tuple(prices)
        self._exact: defaultdict[str, list[_Named]] = defaultdict(list)
        self._globs: list[tuple[re.Pattern[str], _Named]] = []
        self._known: dict[tuple[str | None, ...], list[Price]] = {}
        self._index()

    def price_of(
        self,
        provider: str | None,
        model: str | None,
        response_model: str | None,
        service_tier: str | None,
        moment: datetime,
    ) -> Price | None:
        """The price of a call; None if there is none.

        Args:
            provider: the provider, as in `TraceSpan.provider`.
            model: the requested model.
            response_model: the model that responded.
            service_tier: the service tier; None for the standard one.
            moment: the start of the call.
        """
        key = provider, model, response_model, service_tier
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            found = self._known[key] = self.prices_of(*key)
        for price in found:
            if price.is_valid(moment):
                return price
        return None

    def prices_of(
        self,
        provider: str | None,
        model: str | None,
        response_model: str | None = None,
        service_tier: str | None = None,
    ) -> list[Price]:
        """All prices that may apply to a call, in the order in which they are tried."""
        providers: dict[str | None, int] = {}
        for one in (provider, _FAMILY.get(provider or ""), None, *(() if provider else _MAKERS)):
            providers.setdefault(one, len(providers))
        found = []
        for place, name in enumerate((model, response_model)):
            if name is None or (place and name == model):
                continue
            for named in self._matching(name.strip().lower()):
                if named.service_tier == service_tier and named.provider in providers:
                    is_package, *rank = named.rank
                    order = (is_package, place, *rank[:1], providers[named.provider], *rank[1:])
                    found.append((order, named.prices))
        found.sort(key=lambda each: each[0])
        return [price for _, prices in found for price in prices]

    def _matching(self, name: str) -> Iterator[_Named]:
        yield from self._exact.get(name, ())
        for pattern, named in self._globs:
            if pattern.fullmatch(name):
                yield named

    def _index(self) -> None:
        groups: defaultdict[tuple[object, ...], list[Price]] = defaultdict(list)
        for price in self.prices:
            key = price.is_own, price.source, price.provider, price.model, price.service_tier
            groups[key].append(price)
        for prices in groups.values():
            prices.sort(key=lambda price: price.valid_from or _ALWAYS, reverse=True)
            by_alias: defaultdict[str, list[Price]] = defaultdict(list)
            for price in prices:
                for alias in price.aliases:
                    by_alias[alias.strip().lower()].append(price)
            self._add(prices[0].model.strip().lower(), 0, prices)
            for alias, named in by_alias.items():
                self._add(alias, 2 if "*" in alias else 1, named)

    def _add(self, name: str, kind: int, prices: list[Price]) -> None:
        first = prices[0]
        # Patterns with more characters say more.
        rank = (not first.is_own, kind, -len(name.replace("*", "")), first.model, first.source)
        named = _Named(rank, first.provider, first.service_tier, prices)
        if kind == 2:
            pattern = ".*".join(map(re.escape, name.split("*")))
            self._globs.append((re.compile(pattern, re.DOTALL), named))
        else:
            self._exact[name].append(named)
