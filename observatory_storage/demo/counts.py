"""The counts by which what was emitted is compared with what is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from typing import Any

__all__ = ["Counts", "TraceCounts", "differences"]


@dataclass(slots=True)
class TraceCounts:
    """One trace in numbers."""

    spans: int = 0
    errors: int = 0
    tokens: int = 0
    cost: Decimal = field(default_factory=Decimal)


@dataclass(frozen=True, slots=True)
class Counts:
    """Everything that is compared, each a mapping from a name to its count or sum."""

    spans: Mapping[str, int]
    traces: Mapping[str, TraceCounts]
    tokens: Mapping[str, int]
    costs: Mapping[str, Decimal]
    logs: Mapping[str, int]
    points: Mapping[str, int]
    observations: Mapping[str, int]
    sums: Mapping[str, float]


def differences(emitted: Counts, stored: Counts) -> list[str]:
    """A line for each count that is not the same on both sides; empty when all is well."""
    lines: list[str] = []
    for each in fields(Counts):
        mine: Mapping[str, Any] = getattr(emitted, each.name)
        theirs: Mapping[str, Any] = getattr(stored, each.name)
        lines.extend(
            f"{each.name}, {key}: emitted {mine.get(key, 'none')}, stored {theirs.get(key, 'none')}"
            for key in sorted(mine.keys() | theirs.keys())
            if mine.get(key) != theirs.get(key)
        )
    return lines
