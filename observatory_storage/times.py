"""Constants of time that several modules share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["MICROSECOND", "UNIX_EPOCH"]

MICROSECOND: Final = timedelta(microseconds=1)
UNIX_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
