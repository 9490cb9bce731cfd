"""Delays between attempts, as configured by `RetryConfig`."""

from __future__ import annotations

import random
from collections.abc import Callable

from tenacity import RetryCallState, wait_exponential

from observatory_storage.config import RetryConfig

__all__ = ["backoff", "pause_secs"]


def backoff(retry: RetryConfig) -> Callable[[RetryCallState], float]:
    """Exponential delays in seconds, with jitter, for tenacity's ``wait``.

    The jitter shortens a delay by up to half. So processes that lost the server together do not
    all reconnect at once, and no delay exceeds the configured maximum.
    """
    exponential = wait_exponential(
        multiplier=retry.initial_delay_ms / 1000,
        exp_base=retry.backoff_multiplier,
        max=retry.max_delay_ms / 1000,
    )
    return lambda state: exponential(state) * random.uniform(0.5, 1)  # noqa: S311 - no secret


def pause_secs(retry: RetryConfig, failures: int) -> float:
    """Seconds to wait before another series of attempts, after ``failures`` series have failed."""
    pause = retry.initial_delay_ms * retry.backoff_multiplier ** min(failures, 32)
    return float(min(pause, retry.max_delay_ms)) / 1000
