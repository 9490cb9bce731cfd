"""What the steps of one run of maintenance share: the pool, the present time and the deadline."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

from observatory_storage.errors import ValidationError
from observatory_storage.storing.transaction import Source

__all__ = ["Deadline", "Run"]


class Deadline:
    """The time at which a run stops. A step asks before each piece of its work.

    Args:
        seconds: from now on; None is no bound.
    """

    def __init__(self, seconds: float | None = None) -> None:
        if seconds is not None and (
            isinstance(seconds, bool) or not math.isfinite(seconds) or seconds < 0
        ):
            raise ValidationError("for_secs", seconds, "must be a number that is not negative")
        self._end = None if seconds is None else time.monotonic() + seconds

    @property
    def is_over(self) -> bool:
        return self._end is not None and time.monotonic() >= self._end


def _say_nothing(_: str) -> None: ...


@dataclass(frozen=True)
class Run:
    """One run of maintenance.

    Attributes:
        source: the pool.
        now: the time that ages are counted from.
        deadline: when to stop; what is left is done by the next run.
        progress: is called with a line for people, such as "closed trace_spans_p20260131".
    """

    source: Source
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    deadline: Deadline = field(default_factory=Deadline)
    progress: Callable[[str], object] = _say_nothing

    @classmethod
    def of(
        cls,
        source: Source,
        for_secs: float | None = None,
        now: datetime | None = None,
        progress: Callable[[str], object] | None = None,
    ) -> Self:
        """A run that begins now, with defaults for what is None."""
        moment = datetime.now(UTC) if now is None else now
        return cls(source, moment, Deadline(for_secs), progress or _say_nothing)

    def __post_init__(self) -> None:
        if self.now.utcoffset() is None:
            raise ValidationError("now", self.now, "must be a datetime with a time zone")
