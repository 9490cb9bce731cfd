"""What a model's calls cost: prices, and the cost of a call by them. Pure and exact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Context, Decimal
from typing import Any, Final, Literal, NamedTuple, get_args

__all__ = [
    "INPUT_RATES",
    "RATES",
    "USER",
    "CallUsage",
    "Costs",
    "Price",
    "PriceTier",
    "Rate",
    "TierScope",
    "cost_of",
]

Rate = Literal[
    "input",
    "output",
    "cache_read",
    "cache_write",
    "cache_write_1h",
    "reasoning",
    "input_audio",
    "output_audio",
    "input_image",
    "output_image",
    "input_video",
    "output_video",
]
TierScope = Literal["call", "excess"]
RATES: Final[tuple[Rate, ...]] = get_args(Rate)
USER: Final = "user"
"""The source of the prices that are your own."""

# By kind of tokens in `token_details`: the prices that it may have, the first one that is known.
# Each token is priced once, by the first kind that it belongs to. Tokens read from a cache are the
# beginning of a prompt, so they come first.
_PROMPT: Final[tuple[tuple[str, tuple[Rate, ...]], ...]] = (
    ("prompt_cache_read", ("cache_read", "input")),
    ("prompt_cache_write_1h", ("cache_write_1h", "cache_write", "input")),
    ("prompt_cache_write", ("cache_write", "input")),
    ("prompt_audio", ("input_audio", "input")),
    ("prompt_image", ("input_image", "input")),
    ("prompt_video", ("input_video", "input")),
)
_COMPLETION: Final[tuple[tuple[str, tuple[Rate, ...]], ...]] = (
    ("completion_reasoning", ("reasoning", "output")),
    ("completion_audio", ("output_audio", "output")),
    ("completion_image", ("output_image", "output")),
    ("completion_video", ("output_video", "output")),
)
INPUT_RATES: Final = frozenset(rate for _, rates in _PROMPT for rate in rates)
_ZERO: Final = Decimal(0)
_PER_MILLION: Final = -6
# Precise enough for any tokens and prices, and without the traps of the caller's context.
_EXACT: Final = Context(prec=200, traps=[])
_ONE: Final = Decimal(1)


@dataclass(frozen=True)
class PriceTier:
    """Other prices of calls with many input tokens.

    Attributes:
        above: the number of input tokens above which the tier applies.
        applies_to: "call" for all tokens of such a call, of the input and the output; "excess" for
            the input tokens above the number alone.
        rates: the prices that differ, in US dollars per million tokens.
    """

    above: int
    applies_to: TierScope
    rates: Mapping[Rate, Decimal]


@dataclass(frozen=True)
class Price:
    """The price of a model, from one moment until another.

    Attributes:
        model: the name of the model.
        rates: US dollars per million tokens, by the kind of tokens.
        provider: the provider, as in `TraceSpan.provider`; None for any.
        aliases: other names of the model; ``*`` stands for any characters.
        service_tier: the service tier, such as "batch"; None for the standard one.
        valid_from: the first moment at which it is valid; None for no beginning.
        valid_to: the first moment at which it is valid no more; None for no end.
        usd_per_request: US dollars per call, in addition to its tokens.
        tiers: other prices above a number of input tokens.
        source: "user", or the name and version of the package that it comes from.
    """

    model: str
    rates: Mapping[Rate, Decimal]
    provider: str | None = None
    aliases: Sequence[str] = ()
    service_tier: str | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    usd_per_request: Decimal | None = None
    tiers: Sequence[PriceTier] = field(default=())
    source: str = USER

    @property
    def is_own(self) -> bool:
        """Whether it is your own, and not a package's."""
        return self.source == USER

    def is_valid(self, moment: datetime) -> bool:
        """Whether it is valid at the moment."""
        return (self.valid_from is None or self.valid_from <= moment) and (
            self.valid_to is None or moment < self.valid_to
        )


class CallUsage(NamedTuple):
    """The tokens of a call, as the columns of a span have them; None for what is not known.

    Attributes:
        prompt_tokens: input tokens, including cached ones.
        completion_tokens: output tokens, including reasoning tokens.
        total_tokens: all tokens. If one side is not known, it is the rest of them.
        token_details: tokens with prices of their own, which are part of their side's.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    token_details: Mapping[str, Any] | None = None


class Costs(NamedTuple):
    """The cost of a call in US dollars. The total includes the price of the request itself."""

    prompt: Decimal
    completion: Decimal
    total: Decimal


def cost_of(price: Price, usage: CallUsage) -> Costs | None:
    """What a call costs, exactly; None if the price says nothing of some of its tokens.

    Tokens of a kind without a price of its own cost what their side costs: ``input`` or ``output``.
    Details that say more tokens than their side has are cut.

    Args:
        price: the price of the model at the time of the call.
        usage: the tokens of the call.
    """
    sides = _sides(price, usage)
    if sides is None:
        return None
    prompt, completion = sides
    details = usage.token_details or {}
    rates = price.rates
    excess: list[PriceTier] = []
    if price.tiers:
        whole = [tier for tier in price.tiers if tier.applies_to == "call" and tier.above < prompt]
        for tier in sorted(whole, key=lambda tier: tier.above):
            rates = {**rates, **tier.rates}
        excess = [tier for tier in price.tiers if tier.applies_to == "excess"]
    prompt_cost = _cost(_prompt_kinds(prompt, details), rates, excess)
    completion_cost = _cost(_kinds(completion, details, _COMPLETION, "output"), rates, ())
    if prompt_cost is None or completion_cost is None:
        return None
    total = _EXACT.add(prompt_cost, completion_cost)
    if price.usd_per_request is not None:
        total = _EXACT.add(total, price.usd_per_request)
    return Costs(_plain(prompt_cost), _plain(completion_cost), _plain(total))


def _sides(price: Price, usage: CallUsage) -> tuple[int, int] | None:
    """The tokens of the prompt and of the completion, if they are known."""
    prompt, completion, total, _ = usage
    if prompt is not None and completion is not None:
        return prompt, completion
    if prompt is not None:
        return prompt, max(0, (total or 0) - prompt)
    if completion is not None:
        return max(0, (total or 0) - completion), completion
    # An embedding has no output, and may have been told as a total.
    return (total, 0) if total is not None and "output" not in price.rates else None


def _prompt_kinds(
    tokens: int, details: Mapping[str, Any]
) -> Iterator[tuple[int, tuple[Rate, ...]]]:
    for_an_hour = _count(details, "prompt_cache_write_1h")
    if for_an_hour:  # these are part of all tokens that were written
        others = max(0, _count(details, "prompt_cache_write") - for_an_hour)
        details = {**details, "prompt_cache_write": others}
    return _kinds(tokens, details, _PROMPT, "input")


def _count(details: Mapping[str, Any], name: str) -> int:
    """The tokens of a kind. Details that were given by hand may have any values."""
    count = details.get(name)
    return count if type(count) is int and count > 0 else 0


def _kinds(
    tokens: int,
    details: Mapping[str, Any],
    kinds: Sequence[tuple[str, tuple[Rate, ...]]],
    side: Rate,
) -> Iterator[tuple[int, tuple[Rate, ...]]]:
    """The tokens of each kind, in order, and the prices that they may have."""
    left = tokens
    if details:
        for name, rates in kinds:
            count = _count(details, name)
            if count and (count := min(count, left)):
                left -= count
                yield count, rates
    if left:
        yield left, (side,)


def _cost(
    kinds: Iterator[tuple[int, tuple[Rate, ...]]],
    rates: Mapping[Rate, Decimal],
    excess: Sequence[PriceTier],
) -> Decimal | None:
    cost, place = _ZERO, 0
    for count, names in kinds:
        for part, valid in _parts(place, count, rates, excess) if excess else ((count, rates),):
            rate = next((valid[name] for name in names if name in valid), None)
            if rate is None:
                return None
            cost = _EXACT.fma(rate, part, cost)
        place += count
    return _EXACT.scaleb(cost, _PER_MILLION)


def _parts(
    place: int, count: int, rates: Mapping[Rate, Decimal], tiers: Sequence[PriceTier]
) -> Iterator[tuple[int, Mapping[Rate, Decimal]]]:
    """Divide tokens where tiers begin. `place` is the number of input tokens before them."""
    end = place + count
    starts = sorted({place, *(tier.above for tier in tiers if place < tier.above < end)})
    for start, until in zip(starts, (*starts[1:], end), strict=True):
        valid = rates
        for tier in sorted(tiers, key=lambda tier: tier.above):
            if tier.above <= start:
                valid = {**valid, **tier.rates}
        yield until - start, valid


def _plain(cost: Decimal) -> Decimal:
    """The cost without zeros at its end, and without an exponent above zero."""
    plain = cost.normalize(_EXACT)
    exponent = plain.as_tuple().exponent
    if isinstance(exponent, int) and exponent > 0:
        return plain.quantize(_ONE, context=_EXACT)
    return plain
