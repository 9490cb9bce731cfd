"""Tells people what could not be stored, without telling it a thousand times."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from observatory_storage.processes import PerProcess
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
        self._next: dict[str, float] = {}
        # Reentrant, because the garbage collector may end a stream, and lose its span, anywhere.
        self._lock = PerProcess(threading.RLock)
        self.lost = 0

    def add(self, reason: object, number: int = 1) -> None:
        """Count losses, and report those since the last report. Never raises."""
        with self._lock.get():
            self.lost += number
            if not self._may_tell("loss"):
                return
            lost, self._told = self.lost - self._told, self.lost
        kind = f"{type(reason).__name__}: " if isinstance(reason, BaseException) else ""
        self._say(f"{counted(lost, self._noun)} could not be stored: {kind}{_text(reason)}")

    def add_silently(self) -> None:
        """Count a loss whose reason has been reported. The next report includes it."""
        with self._lock.get():
            self.lost += 1

    def say(self, report: str) -> None:
        """Report something else, unless another such report was within the last minute."""
        with self._lock.get():
            if not self._may_tell("other"):
                return
        self._say(report)

    def _may_tell(self, kind: str) -> bool:
        now = time.monotonic()
        if now < self._next.get(kind, 0.0):
            return False
        self._next[kind] = now + _PAUSE_SECS
        return True

    def _say(self, report: str) -> None:
        with suppress(Exception):  # a stream that is closed
            self._tell(report)


def _text(reason: object) -> str:
    try:
        return str(reason)
    except Exception:  # noqa: BLE001 - the exception's own code
        return "?"
