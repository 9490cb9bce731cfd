"""The counts by which what was emitted is compared with what is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from typing import Any

__all__ = ["Facts", "TraceFacts", "differences"]


@dataclass(slots=True)
class TraceFacts:
    """One trace in numbers."""

    spans: int = 0
    errors: int = 0
    tokens: int = 0
    cost: Decimal = field(default_factory=Decimal)


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that is compared, each a mapping from a name to its count or sum."""

    spans: Mapping[str, int]
    traces: Mapping[str, TraceFacts]
    tokens: Mapping[str, int]
    costs: Mapping[str, Decimal]
    logs: Mapping[str, int]
    points: Mapping[str, int]
    observations: Mapping[str, int]
    sums: Mapping[str, float]


def differences(emitted: Facts, stored: Facts) -> list[str]:
    """A line for each count that is not the same on both sides; empty when all is well."""
    lines: list[str] = []
    for each in fields(Facts):
        mine: Mapping[str, Any] = getattr(emitted, each.name)
        theirs: Mapping[str, Any] = getattr(stored, each.name)
        lines.extend(
            f"{each.name}, {key}: emitted {mine.get(key, 'none')}, stored {theirs.get(key, 'none')}"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        )
    return lines
