"""Durations as text: ``90d``, ``36h``, ``1h30m``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Final

from pydantic import BeforeValidator

from observatory_storage.config.problems import RuleError
from observatory_storage.errors import ValidationError

__all__ = ["Duration", "duration_text", "parse_duration"]

_UNITS: Final = {
    "w": timedelta(weeks=1),
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
}
_PART: Final = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*([wdhms])\s*", re.ASCII)
_TEXT: Final = re.compile(rf"(?:{_PART.pattern})+", re.ASCII)
_EXAMPLES: Final = "such as 2w, 90d, 36h, 30m or 45s"


def _duration(value: Any) -> timedelta:
    if isinstance(value, timedelta):
        if value < timedelta(0):
            raise RuleError("must not be negative")
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        # 90 might mean days to one reader and seconds to another.
        raise RuleError(f"must have a unit, {_EXAMPLES}")
    if not isinstance(value, str):
        raise RuleError(f"must be a duration, {_EXAMPLES}")
    text = value.strip()
    if re.fullmatch(r"[\d.]+", text):
        raise RuleError(f"must have a unit, {_EXAMPLES}")
    if _TEXT.fullmatch(text) is None:
        raise RuleError(f"must be a duration, {_EXAMPLES}")
    try:
        return sum((float(n) * _UNITS[unit] for n, unit in _PART.findall(text)), timedelta(0))
    except OverflowError:
        raise RuleError(f"must be a duration of less than {timedelta.max.days} days") from None


def parse_duration(text: str, field: str = "duration") -> timedelta:
    """Parse a duration: numbers with the units w, d, h, m and s, such as ``90d`` or ``1h30m``.

    Args:
        text: the duration. A timedelta is returned as it is.
        field: the name that an error gives the value.

    Raises:
        ValidationError: the text is not a duration. It names the field and the value.
    """
    try:
        return _duration(text)
    except RuleError as error:
        raise ValidationError(field, text, str(error)) from None


def duration_text(duration: timedelta) -> str:
    """The duration as text that `parse_duration` takes back, such as ``1d12h``."""
    seconds = duration // timedelta(seconds=1)
    parts = []
    for unit in ("d", "h", "m"):
        count, seconds = divmod(seconds, _UNITS[unit] // timedelta(seconds=1))
        if count:
            parts.append(f"{count}{unit}")
    if duration.microseconds:
        parts.append(f"{seconds}.{duration.microseconds:06}s")
    elif seconds or not parts:
        parts.append(f"{seconds}s")
    return "".join(parts)


Duration = Annotated[timedelta, BeforeValidator(_duration)]
"""A field of a section that takes a duration: text with a unit, or a timedelta."""
