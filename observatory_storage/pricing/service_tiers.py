"""The service tier of a call, on which its price may depend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa

__all__ = ["SERVICE_TIERS", "STANDARD_TIERS", "service_tier_of", "stored_tier", "tier_of"]

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
_BRACKETS: Final = ("[", "{")


def service_tier_of(spelling: object) -> str | None:
    """The service tier by the name that prices have it; None for the standard one."""
    # The attribute of a stored span may be the preview of a list or an object.
    if not isinstance(spelling, str) or spelling.startswith(_BRACKETS):
        return None
    lower = spelling.strip().lower()
    return None if lower in STANDARD_TIERS else lower


def tier_of(attributes: Mapping[str, Any]) -> str | None:
    """The service tier of a call by the attributes of its span; None for the standard one."""
    for name in SERVICE_TIERS:
        if attributes.get(name) is not None:
            return service_tier_of(attributes[name])
    return None


def stored_tier(attributes: Any) -> sa.ColumnElement[str]:
    """What `tier_of` finds, in SQL, as it is spelled; NULL if it is not text.

    Args:
        attributes: the column `attributes` of stored spans.
    """
    null: sa.ColumnElement[Any] = sa.literal_column("'null'::jsonb")
    first = sa.func.coalesce(*(sa.func.nullif(attributes[name], null) for name in SERVICE_TIERS))
    # As text alone, a number or a list would look like a tier of that name.
    text = first.op("#>>")(sa.literal_column("'{}'::text[]"))
    is_text = sa.and_(
        sa.func.jsonb_typeof(first) == "string", sa.func.left(text, 1).not_in(_BRACKETS)
    )
    return sa.case((is_text, sa.cast(text, sa.Text)))
