"""Stops calls of a server that does not answer, and tries it again from time to time."""

from __future__ import annotations

import time

__all__ = ["CircuitBreaker"]


class CircuitBreaker:
    """Decides whether a server may be called.

    After several failures in a row the breaker opens: no call is allowed for a pause. Then one call
    is allowed. If it succeeds, the breaker closes; if it fails, the next pause is twice as long.

    It has no lock, which a fork could leave locked in the child. When several threads ask at the
    end of a pause, more than one of them may be allowed to call.

    Args:
        failures: how many failures in a row open it.
        pause_secs: the first pause, in seconds.
        max_pause_secs: the longest pause.

    Attributes:
        times_opened: how often it has opened; further pauses do not count.
    """

    def __init__(
        self, failures: int = 3, pause_secs: float = 1.0, max_pause_secs: float = 30.0
    ) -> None:
        self._most_failures = failures
        self._first_pause = pause_secs
        self._max_pause = max_pause_secs
        self._failures = 0
        self._pause = pause_secs
        self._open_until: float | None = None
        self.times_opened = 0

    @property
    def is_open(self) -> bool:
        """Whether the last calls failed, so that most calls are not allowed."""
        return self._open_until is not None

    @property
    def remaining_secs(self) -> float:
        """The seconds until a call is allowed; 0 if one is allowed now."""
        until = self._open_until
        return 0.0 if until is None else max(0.0, until - time.monotonic())

    def allows_call(self) -> bool:
        """Whether to call the server now. Report the result with `succeeded` or `failed`."""
        until = self._open_until
        if until is None:
            return True
        now = time.monotonic()
        if now < until:
            return False
        # The others wait for the result of this call.
        self._open_until = now + self._pause
        return True

    def succeeded(self) -> None:
        """A call succeeded: close the breaker."""
        if self._failures or self._open_until is not None:
            self._failures = 0
            self._pause = self._first_pause
            self._open_until = None

    def failed(self) -> None:
        """A call failed: open the breaker, or prolong its pause."""
        self._failures += 1
        if self._open_until is not None:
            self._pause = min(self._pause * 2, self._max_pause)
        elif self._failures < self._most_failures:
            return
        else:
            self.times_opened += 1
        self._open_until = time.monotonic() + self._pause
