"""Tells people what could not be stored, without telling it a thousand times."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from observatory_storage.wording import counted

__all__ = ["LossReport"]

_PAUSE_SECS: Final = 60.0


class LossReport:
    """Counts what was lost, and reports the first loss and then at most one a minute.

    Args:
        noun: what is lost, in the singular.
        tell: is called with each report.

    Attributes:
        lost: the number of losses so far.
    """

    def __init__(self, noun: str, tell: Callable[[str], object]) -> None:
        self._noun = noun
        self._tell = tell
        self._told = 0
        self._next = 0.0
        self.lost = 0

    def add(self, reason: object) -> None:
        """Count a loss. Never raises."""
        self.lost += 1
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _PAUSE_SECS
            self.tell(reason)

    def tell(self, reason: object) -> None:
        """Report the losses since the last report, and the latest reason. Never raises."""
        lost, self._told = self.lost - self._told, self.lost
        try:
            kind = f"{type(reason).__name__}: " if isinstance(reason, BaseException) else ""
            self._tell(f"{counted(lost, self._noun)} could not be stored: {kind}{reason}")
        except Exception:  # noqa: BLE001, S110 - a stream that is closed, an error without a text
            pass
