"""How much the fault and fuzz tests do: little by default, in full under ``make soak``."""

from __future__ import annotations

import os
import random
from typing import Final, TypeVar

from hypothesis import HealthCheck, Phase, settings

__all__ = ["FULL", "examples", "scaled", "seeded"]

FULL: Final = os.environ.get("SOAK") == "1"
_T = TypeVar("_T")


def scaled(short: _T, full: _T) -> _T:
    """The one for the usual run, or the one for a soak."""
    return full if FULL else short


def seeded() -> random.Random:
    """Chance: always the same, or under a soak another every time, which says its seed."""
    seed = random.SystemRandom().randrange(2**32) if FULL else 0
    print(f"{seed=}")
    return random.Random(seed)


def examples(short: int, full: int) -> settings:
    """Hypothesis with so many examples: always the same ones, or under a soak ever new ones."""
    return settings(
        max_examples=scaled(short, full),
        derandomize=not FULL,
        deadline=None,
        database=None,
        print_blob=FULL,
        phases=[Phase.generate],
        suppress_health_check=[
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
            HealthCheck.filter_too_much,
        ],
    )
