"""What a call costs by the price of its model. Pure and exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Context, Decimal
from itertools import pairwise
from typing import Any, Final, NamedTuple

from observatory_storage.pricing.price import Price, Rate

__all__ = ["CallUsage", "Costs", "cost_of"]

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
_PROMPT_KINDS: Final = tuple(name for name, _ in _PROMPT)
_COMPLETION_KINDS: Final = tuple(name for name, _ in _COMPLETION)
_PER_MILLION: Final = -6
# Precise enough for any tokens and prices, and without the traps of the caller's context.
_EXACT: Final = Context(prec=200, traps=[])
_ONE, _TEN = Decimal(1), Decimal(10)


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


class _Rates(NamedTuple):
    """The prices of all kinds of tokens as integers, in the order in which they are taken."""

    prompt: tuple[int | None, ...]
    input: int | None
    completion: tuple[int | None, ...]
    output: int | None


class _Plan(NamedTuple):
    """A price made ready to compute with: decimals as integers of one exponent.

    Attributes:
        exponent: the exponent of the integers.
        calls: the prices of whole calls above a number of input tokens, ascending from -1.
        excess: for tiers of the excess: their numbers, and the prices that they change.
    """

    exponent: int
    calls: tuple[tuple[int, Mapping[Rate, Decimal], _Rates], ...]
    excess: tuple[tuple[int, Mapping[Rate, Decimal]], ...]


def _plan_of(price: Price) -> _Plan:
    try:
        plan: _Plan = price._plan
        return plan
    except AttributeError:
        object.__setattr__(price, "_plan", plan := _new_plan(price))
        return plan


def _new_plan(price: Price) -> _Plan:
    tiers = sorted(price.tiers, key=lambda tier: tier.above)
    decimals = [*price.rates.values(), *(rate for tier in tiers for rate in tier.rates.values())]
    exponent = min((_exponent(each) for each in decimals), default=0)
    rates = dict(price.rates)
    calls = [(-1, rates, _resolved(rates, exponent))]
    for tier in tiers:
        if tier.applies_to == "call":
            rates = {**rates, **tier.rates}
            calls.append((tier.above, rates, _resolved(rates, exponent)))
    excess = [(tier.above, tier.rates) for tier in tiers if tier.applies_to == "excess"]
    return _Plan(exponent, tuple(calls), tuple(excess))


def _exponent(number: Decimal) -> int:
    exponent = number.as_tuple().exponent
    return min(exponent, 0) if isinstance(exponent, int) else 0


def _resolved(rates: Mapping[Rate, Decimal], exponent: int) -> _Rates:
    whole: dict[str, int] = {
        name: int(_EXACT.scaleb(rate, -exponent)) for name, rate in rates.items()
    }

    def first(names: Sequence[Rate]) -> int | None:
        return next((whole[name] for name in names if name in whole), None)

    return _Rates(
        tuple(first(names) for _, names in _PROMPT),
        whole.get("input"),
        tuple(first(names) for _, names in _COMPLETION),
        whole.get("output"),
    )


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
    details = usage.token_details
    exponent, calls, excess = _plan_of(price)
    _, rates, whole = calls[0]
    for above, tier_rates, tier_whole in calls[1:]:
        if prompt > above:
            rates, whole = tier_rates, tier_whole
    if details and "prompt_cache_write_1h" in details:
        details = _with_five_minutes(details)
    if excess:
        prompt_cost = _cost_with_excess(prompt, details, rates, excess, exponent)
    else:
        prompt_cost = _cost(prompt, details, _PROMPT_KINDS, whole.prompt, whole.input)
    completion_cost = _cost(completion, details, _COMPLETION_KINDS, whole.completion, whole.output)
    if prompt_cost is None or completion_cost is None:
        return None
    exponent += _PER_MILLION
    total = _dollars(prompt_cost + completion_cost, exponent)
    if price.usd_per_request is not None:
        total = _plain(_EXACT.add(total, price.usd_per_request))
    return Costs(_dollars(prompt_cost, exponent), _dollars(completion_cost, exponent), total)


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


def _with_five_minutes(details: Mapping[str, Any]) -> Mapping[str, Any]:
    """The details with the tokens that were written for five minutes alone.

    Those that were written for an hour are part of all tokens that were written.
    """
    others = _count(details, "prompt_cache_write") - _count(details, "prompt_cache_write_1h")
    return {**details, "prompt_cache_write": others}


def _count(details: Mapping[str, Any], name: str) -> int:
    """The tokens of a kind. Details that were given by hand may have any values."""
    count = details.get(name)
    return count if type(count) is int and count > 0 else 0


def _cost(
    tokens: int,
    details: Mapping[str, Any] | None,
    kinds: Sequence[str],
    rates: Sequence[int | None],
    plain: int | None,
) -> int | None:
    """The cost of a side; None if one of its tokens has no price."""
    cost, left = 0, tokens
    if details:
        for name, rate in zip(kinds, rates, strict=True):
            if name in details and (count := min(_count(details, name), left)):
                if rate is None:
                    return None
                cost += count * rate
                left -= count
    if left:
        if plain is None:
            return None
        cost += left * plain
    return cost


def _cost_with_excess(
    tokens: int,
    details: Mapping[str, Any] | None,
    rates: Mapping[Rate, Decimal],
    excess: Sequence[tuple[int, Mapping[Rate, Decimal]]],
    exponent: int,
) -> int | None:
    """The cost of a prompt whose tokens above some numbers have other prices."""
    # Where the tokens of each kind end, one kind after another.
    ends: list[int] = []
    place = 0
    for name in _PROMPT_KINDS:
        place = min(tokens, place + (_count(details, name) if details else 0))
        ends.append(place)
    ends.append(tokens)
    cost = 0
    for lower, upper in pairwise([0, *(above for above, _ in excess), max(tokens, excess[-1][0])]):
        for above, changed in excess:
            if above == lower:
                rates = {**rates, **changed}
        whole = _resolved(rates, exponent)
        start = 0
        for end, rate in zip(ends, (*whole.prompt, whole.input), strict=True):
            count = min(end, upper) - max(start, lower)
            start = end
            if count > 0:
                if rate is None:
                    return None
                cost += count * rate
    return cost


def _dollars(whole: int, exponent: int) -> Decimal:
    return _plain(_EXACT.scaleb(Decimal(whole), exponent))


def _plain(cost: Decimal) -> Decimal:
    """The cost without zeros at its end, and without an exponent above zero."""
    plain = cost.normalize(_EXACT)
    if plain >= _TEN and (exponent := plain.as_tuple().exponent) and isinstance(exponent, int):
        return plain.quantize(_ONE, context=_EXACT) if exponent > 0 else plain
    return plain
