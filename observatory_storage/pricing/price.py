"""The price of a model, from one moment until another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal, get_args

from observatory_storage.serialization import Result

__all__ = [
    "INPUT_RATES",
    "RATES",
    "USER",
    "Price",
    "PriceTier",
    "Rate",
    "TierScope",
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

INPUT_RATES: Final = frozenset(
    {
        *("input", "cache_read", "cache_write", "cache_write_1h"),
        *("input_audio", "input_image", "input_video"),
    }
)
"""The prices of input tokens."""


@dataclass(frozen=True, slots=True)
class PriceTier(Result):
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


class _Planned(Result):  # what is made of a price once, and is no field of it
    __slots__ = ("_plan",)
    _plan: Any


@dataclass(frozen=True, slots=True)
class Price(_Planned):
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
