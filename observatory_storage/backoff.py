"""How long to wait before another attempt, as the section `retry` of the configuration says."""

from __future__ import annotations

import random
from collections.abc import Callable

from tenacity import RetryCallState, wait_exponential

from observatory_storage.config import RetryConfig

__all__ = ["backoff", "pause_secs"]


def backoff(retry: RetryConfig) -> Callable[[RetryCallState], float]:
    """Delays in seconds for tenacity's ``wait``: each longer than the one before, with jitter.

    The jitter takes up to half of a delay away, so that processes which lost the server together
    do not all come back together, and no delay is above the configured maximum.
    """
    longest = wait_exponential(
        multiplier=retry.initial_delay_ms / 1000,
        exp_base=retry.backoff_multiplier,
        max=retry.max_delay_ms / 1000,
    )
    return lambda state: longest(state) * random.uniform(0.5, 1)  # noqa: S311 - no secret


def pause_secs(retry: RetryConfig, failures: int) -> float:
    """Seconds before another series of attempts, after so many series have failed."""
    pause = retry.initial_delay_ms * retry.backoff_multiplier ** min(failures, 32)
    return float(min(pause, retry.max_delay_ms)) / 1000
