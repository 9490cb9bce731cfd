"""The service tier of a call, on which its price may depend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["SERVICE_TIERS", "STANDARD_TIERS", "service_tier_of", "tier_of"]

SERVICE_TIERS: Final = (
    *("openai.response.service_tier", "gen_ai.openai.response.service_tier"),
    *("gen_ai.response.service_tier", "anthropic.response.service_tier"),
    *("openai.request.service_tier", "gen_ai.openai.request.service_tier"),
    *("gen_ai.request.service_tier", "llm.request.service_tier"),
)
"""The attributes that name the service tier of a call: the tier that served it goes first."""
STANDARD_TIERS: Final = frozenset(
    {"", "auto", "default", "standard", "standard_only", "on_demand", "none"}
)
"""The names of the standard tier, in lower case."""


def service_tier_of(spelling: object) -> str | None:
    """The service tier by the name that prices have it; None for the standard one."""
    if not isinstance(spelling, str):
        return None
    lower = spelling.strip().lower()
    return None if lower in STANDARD_TIERS else lower


def tier_of(attributes: Mapping[str, Any]) -> str | None:
    """The service tier of a call by the attributes of its span; None for the standard one."""
    for name in SERVICE_TIERS:
        if attributes.get(name) is not None:
            return service_tier_of(attributes[name])
    return None
