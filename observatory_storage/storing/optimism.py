"""Whether to load rows without a merge: that does not pay for rows that are there already.

A batch that meets a conflict was sent for nothing. After several in a row, rows are probably being
sent again (a file ingested twice, a collector that repeats itself). The next batches are then
merged directly, until it is time to try once more.
"""

from __future__ import annotations

from typing import Final
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine

__all__ = ["Optimism", "optimism"]

_CONFLICTS_IN_A_ROW: Final = 3
_BATCHES_MERGED_DIRECTLY: Final = 32


class Optimism:
    """What was learnt of one purpose through one engine.

    Threads may race for it: nothing depends on its being exact.
    """

    def __init__(self) -> None:
        self._conflicts = 0
        self._direct = 0

    def allows(self) -> bool:
        """Whether the next batch may go straight in."""
        if self._direct:
            self._direct -= 1
            return False
        return True

    def learn(self, *, clean: bool) -> None:
        """Note whether a batch that was loaded without a merge met no conflict."""
        if clean:
            self._conflicts = 0
            return
        self._conflicts += 1
        if self._conflicts >= _CONFLICTS_IN_A_ROW:
            # One more conflict after these is enough to merge directly again.
            self._conflicts = _CONFLICTS_IN_A_ROW - 1
            self._direct = _BATCHES_MERGED_DIRECTLY


_learnt: WeakKeyDictionary[Engine, dict[str, Optimism]] = WeakKeyDictionary()


def optimism(connection: Connection, purpose: str) -> Optimism:
    """The optimism for a purpose; one object for all users of an engine."""
    purposes = _learnt.setdefault(connection.engine, {})
    return purposes.setdefault(purpose, Optimism())
