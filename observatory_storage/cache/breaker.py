"""Stops asking a server that fails, and tries it again after a pause."""

from __future__ import annotations

import threading
import time
from typing import Final

__all__ = ["CircuitBreaker"]

_FAILURES: Final = 3
_FIRST_PAUSE_SECS: Final = 1.0


class CircuitBreaker:
    """Opens after three failures in a row. It is closed again by a call that succeeds.

    While it is open, one caller after each pause may try. The pauses grow while the calls fail.

    Args:
        longest_pause_secs: the longest of the pauses.

    Attributes:
        openings: how often it has opened.
    """

    def __init__(self, longest_pause_secs: float) -> None:
        self._longest_pause = longest_pause_secs
        self._lock = threading.Lock()
        self._failures = 0
        self._pause = _FIRST_PAUSE_SECS
        self._open_until: float | None = None  # None while it is closed
        self.openings = 0

    @property
    def is_open(self) -> bool:
        """Whether callers are refused."""
        return self._open_until is not None

    def allows(self) -> bool:
        """Whether the caller may ask the server now."""
        if not self.is_open:
            return True
        with self._lock:
            now, until = time.monotonic(), self._open_until
            if until is None:
                return True
            if now < until:
                return False
            # This caller tries; the others go on without the server meanwhile.
            self._open_until = now + self._pause
            return True

    def succeeded(self) -> None:
        """Note that the server has answered."""
        if self._failures or self._open_until is not None:
            with self._lock:
                self._failures = 0
                self._open_until = None
                self._pause = _FIRST_PAUSE_SECS

    def failed(self) -> None:
        """Note that the server has not answered, or not in time."""
        with self._lock:
            self._failures += 1
            if self._open_until is not None:
                self._pause = min(2 * self._pause, self._longest_pause)
            elif self._failures >= _FAILURES:
                self.openings += 1
            else:
                return
            self._open_until = time.monotonic() + self._pause
