"""The keys of payload frames: the trace, the hour in UTC of its spans or records, and an id."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from observatory_storage.payloads.frame import Owner
from observatory_storage.times import MICROSECOND, UNIX_EPOCH

__all__ = [
    "HOUR",
    "FrameKey",
    "LogFrameKey",
    "hour_of",
    "hours_of",
    "new_frame_id",
    "owner_of",
]

HOUR: Final = timedelta(hours=1)


class FrameKey(NamedTuple):
    """The primary key of a frame.

    Attributes:
        trace_id: the `id` of its trace.
        start_time: the hour in which its spans start; see `hour_of`.
        id: the `payload_frame` of its rows.
    """

    trace_id: UUID
    start_time: datetime
    id: int

    def __str__(self) -> str:
        trace, hour = self.trace_id.hex, self.start_time.astimezone(UTC)
        return f"payload frame {self.id} of trace {trace}, {hour:%Y-%m-%d %H:00} UTC"


class LogFrameKey(FrameKey):
    """The primary key of a frame of log records."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"log {super().__str__()}"


def hour_of(start: datetime) -> datetime:
    """The hour, in UTC, of a span or record of this time: the `start_time` of its frame."""
    return start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def hours_of(starts: Iterable[datetime]) -> set[datetime]:
    """The hours of spans that start then. They mostly follow each other."""
    hours = set()
    first = last = None
    for start in starts:
        if first is None or last is None or not first <= start <= last:
            first = hour_of(start)
            last = first + (HOUR - MICROSECOND)
            hours.add(first)
    return hours


def owner_of(
    span_id: str, start_time: datetime, start_ns: int, position: int | None = None
) -> Owner:
    """The owner of values in a frame: a span, or its event at the position."""
    return Owner(span_id, (start_time - UNIX_EPOCH) // MICROSECOND, start_ns, position)


def new_frame_id() -> int:
    """A random id for a new frame."""
    return random.getrandbits(63)
