"""The counts that the demo compares: of emitted telemetry and of stored rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from typing import Any

__all__ = ["Counts", "TraceCounts", "differences"]


@dataclass(slots=True)
class TraceCounts:
    """The counts of one trace."""

    spans: int = 0
    errors: int = 0
    tokens: int = 0
    cost: Decimal = field(default_factory=Decimal)


@dataclass(frozen=True, slots=True)
class Counts:
    """All counts. Each field maps names to counts or sums."""

    spans: Mapping[str, int]
    traces: Mapping[str, TraceCounts]
    tokens: Mapping[str, int]
    costs: Mapping[str, Decimal]
    logs: Mapping[str, int]
    points: Mapping[str, int]
    observations: Mapping[str, int]
    sums: Mapping[str, float]


def differences(emitted: Counts, stored: Counts) -> list[str]:
    """One line for each count that differs."""
    lines: list[str] = []
    for counts in fields(Counts):
        before: Mapping[str, Any] = getattr(emitted, counts.name)
        after: Mapping[str, Any] = getattr(stored, counts.name)
        for key in sorted(before.keys() | after.keys()):
            count, found = before.get(key, "none"), after.get(key, "none")
            if count != found:
                lines.append(f"{counts.name}, {key}: emitted {count}, stored {found}")
    return lines
