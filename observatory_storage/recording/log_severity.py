"""Severity numbers of OpenTelemetry for the levels of `logging`."""

from __future__ import annotations

from typing import Final

from observatory_storage.models.severities import LEVELS

__all__ = ["severity_number"]

_BY_TENS: Final = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")


def severity_number(level: int) -> int | None:
    """The severity number of a level, also of one between the standard ones; None for 0.

    Each of OpenTelemetry's ranges has four numbers. As in OpenTelemetry's SDK, a level of 21 is
    INFO2, and 23 to 29 are INFO4. Levels below DEBUG are TRACE.
    """
    if level <= 0:
        return None
    tens = min(level // 10, len(_BY_TENS) - 1)
    beyond = level - 10 * tens
    return LEVELS[_BY_TENS[tens]] + (min(beyond, 3) if tens else 0)
