"""Values as people write them: durations, times, levels, attributes.

Any other text raises ValueError, whose message shows valid values.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

__all__ = ["Value", "attribute", "duration", "moment", "severity"]

Value = str | int | float | bool | list[Any]

_UNITS: Final = {
    "us": timedelta(microseconds=1),
    "µs": timedelta(microseconds=1),
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(us|µs|ms|[smhdw])")


def duration(text: str) -> timedelta:
    """A duration such as ``250ms``, ``1.5s`` or ``7d``."""
    found = _duration(text)
    if found is None:
        raise ValueError(f"{text!r} is not a duration such as 250ms, 1.5s, 2h or 7d")
    return found


def moment(text: str) -> datetime:
    """A time in ISO 8601 (in UTC unless it names a zone), or a duration before now."""
    ago = _duration(text)
    try:
        found = datetime.now(UTC) - ago if ago is not None else datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise ValueError(
            f"{text!r} is neither a time such as 2026-07-01T12:00Z nor one ago such as 2h or 7d"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def severity(text: str) -> int | str:
    """A severity number, or the name of a level."""
    return int(text) if text.isdecimal() else text.upper()


def attribute(text: str) -> Value:
    """A number, a boolean, a list or a quoted text, as in JSON. Anything else is text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, str | int | float | bool | list) else text


def _duration(text: str) -> timedelta | None:
    match = _DURATION.fullmatch(text.strip())
    return float(match[1]) * _UNITS[match[2]] if match else None
