"""Decides whether to load rows without a merge, which fails for rows that exist already.

A batch that meets a conflict was sent in vain. After several conflicts in a row, rows are probably
being sent again, for example from a file that is ingested twice. The next batches are then merged
without an attempt to load them directly. After these, one more attempt is made.
"""

from __future__ import annotations

from typing import Final
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine

__all__ = ["Optimism", "optimism"]

_CONFLICTS_IN_A_ROW: Final = 3
_BATCHES_MERGED_DIRECTLY: Final = 32


class Optimism:
    """The recent conflicts of one purpose on one engine.

    Threads may race for it, because nothing depends on exact counts.
    """

    def __init__(self) -> None:
        self._conflicts = 0
        self._direct = 0

    def allows(self) -> bool:
        """Whether to load the next batch without a merge."""
        if self._direct:
            self._direct -= 1
            return False
        return True

    def learn(self, *, clean: bool) -> None:
        """Record whether a batch was loaded without a conflict."""
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
    """The `Optimism` of a purpose. All users of an engine share one object."""
    purposes = _learnt.setdefault(connection.engine, {})
    return purposes.setdefault(purpose, Optimism())
