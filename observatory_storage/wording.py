"""Words of numbers, for people."""

from __future__ import annotations

__all__ = ["counted"]


def counted(number: int, noun: str) -> str:
    """So many of what the noun says, such as "1 row" and "1,204 rows".

    Args:
        number: how many.
        noun: in the singular. Its plural ends in -s.
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
