"""Remembers how much the rows of a list's last page took, so that the next one reads that at once.

A rate decides how much the first statement of a page reads, and never which rows are found. It is
that of the last page with the same filter fields set, and is remembered for each engine.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final
from weakref import WeakKeyDictionary

import sqlalchemy as sa

from observatory_storage.repositories.reading.reader import Reader

__all__ = ["PageRate", "forget_rates"]

# The next page may take somewhat more.
_MARGIN: Final = 1.25
# Lists with more different sets of fields than this are forgotten.
_MOST_KEPT: Final = 256

_known: Final[WeakKeyDictionary[sa.Engine, dict[Hashable, float]]] = WeakKeyDictionary()


def forget_rates(engine: sa.Engine) -> None:
    """Read the next page of each list as if it were the first one."""
    _known.pop(engine, None)


class PageRate:
    """How many partitions, spans or other units a row of a list takes.

    Args:
        key: the list and the names of the filter fields that are set.
    """

    def __init__(self, reader: Reader, key: Hashable) -> None:
        self._rates = _known.setdefault(reader.session.connection().engine, {})
        self._key = key

    def expected(self, row_limit: int) -> int:
        """The units that a page of so many rows is expected to take; 0 if that is not known."""
        return int(self._rates.get(self._key, 0) * row_limit * _MARGIN)

    def note(self, taken: int, rows: int) -> None:
        """Remember how many units so many rows took; without rows, forget what is known."""
        if len(self._rates) >= _MOST_KEPT and self._key not in self._rates:
            self._rates.clear()
        self._rates[self._key] = taken / rows if rows else 0
