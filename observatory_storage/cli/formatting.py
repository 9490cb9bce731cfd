"""Values as people read them: short, aligned, and safe to print."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

__all__ = ["SHORT_ID", "clean", "count", "dollars", "duration", "moment", "size"]

# The number of characters of a trace's id in a narrow table. Commands accept such a beginning.
SHORT_ID = 12
_REPLACEMENT = "\ufffd"
# Zero-width joiners occur in emoji and between letters of some scripts. Without them, the parts are
# shown side by side.
_JOINERS = str.maketrans("", "", "\u200c\u200d")


def clean(text: str) -> str:
    """The text on one line and without control characters.

    Stored text was written by others: an escape sequence in a span's name must not reach the
    terminal.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else " " if character in "\t\n\r" else _REPLACEMENT
        for character in text.translate(_JOINERS)
    )


def duration(nanoseconds: float | None) -> str:
    """A duration in the unit that fits it; a dash where there is none (a span without an end)."""
    if nanoseconds is None:
        return "-"
    if nanoseconds < 0:
        return f"-{duration(-nanoseconds)}"
    if nanoseconds < 1_000:
        return f"{nanoseconds:.0f} ns"
    # The bounds are where the rounded number would need another digit.
    for limit, size, unit in ((999_500, 1e3, "µs"), (999_500_000, 1e6, "ms"), (99.95e9, 1e9, "s")):
        if nanoseconds < limit:
            number = nanoseconds / size
            digits = 2 if number < 9.995 else 1 if number < 99.95 else 0
            return f"{number:.{digits}f} {unit}"
    seconds = round(nanoseconds / 1e9)
    hours, rest = divmod(seconds, 3600)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24:02} h"
    return f"{hours} h {rest // 60:02} m" if hours else f"{rest // 60} m {rest % 60:02} s"


def count(number: int | None) -> str:
    """A count with separators; empty where it is not known."""
    return "" if number is None else f"{number:,}"


def size(number: float | None) -> str:
    """A number of bytes in the unit that fits it, of 1,000 each; empty where it is not known."""
    if number is None:
        return ""
    units = ("B", "kB", "MB", "GB", "TB", "PB")
    power = 0
    while number >= 999.5 and power < len(units) - 1:
        number /= 1000
        power += 1
    digits = 0 if power == 0 or number >= 99.95 else 1
    return f"{number:,.{digits}f} {units[power]}"


def dollars(amount: Decimal | None) -> str:
    """An amount in US dollars: cents, or as many digits as a small amount needs; empty if None."""
    if amount is None:
        return ""
    size = abs(amount)
    if size >= 1 or not size:
        return f"${amount:,.2f}"
    places = 4 if size >= Decimal("0.001") else min(12, 1 - size.adjusted())
    return f"${amount:.{places}f}"


def moment(time: datetime | None, *, short: bool = False) -> str:
    """A time in UTC, to milliseconds; short: without the year, to seconds."""
    if time is None:
        return "-"
    utc = time.astimezone(UTC)
    if short:
        return f"{utc:%m-%d %H:%M:%S}"
    return f"{utc:%Y-%m-%d %H:%M:%S}.{utc.microsecond // 1000:03}"
