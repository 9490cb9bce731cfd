"""How far a standby is behind its primary, in bytes and in seconds."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from observatory_storage.processes import PerProcess
from observatory_storage.wal_positions import WalState, lsn_number

__all__ = ["Lag", "LagMeter"]

_MOST_KEPT: Final = 1000


class Lag(NamedTuple):
    """How far a standby is behind; None if it is not known.

    Attributes:
        bytes: the bytes of the log that the primary has flushed, and the standby has not replayed.
        secs: the seconds for which the standby has been without them, at most.
    """

    bytes: int | None
    secs: float | None


@dataclass
class _Seen:
    """When the primary was at which position, as this process has seen it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    positions: list[tuple[float, int]] = field(default_factory=list)


class LagMeter:
    """Measures the lag of one standby.

    The standby knows when the last commit that it has replayed took place. But that may be long
    ago because the primary has been idle, so a standby without anything to replay has no lag. And
    if it is a few bytes behind after a long pause, an earlier measurement bounds the lag: it had
    replayed everything then.
    """

    def __init__(self) -> None:
        self._seen = PerProcess(_Seen)

    def measure(self, primary: WalState | None, standby: WalState) -> Lag:
        """The lag.

        Args:
            primary: the state of the primary, asked before the standby; None if it is not known.
            standby: the state of the server that is read from.
        """
        if not standby.is_standby:
            return Lag(0, 0.0)
        if primary is None or primary.is_standby or primary.lsn is None or standby.lsn is None:
            return Lag(None, None)
        at, replayed = lsn_number(primary.lsn), lsn_number(standby.lsn)
        now = time.monotonic()
        seen = self._seen.get()
        with seen.lock:
            positions = seen.positions
            positions.append((now, at))
            while len(positions) > 1 and positions[1][1] <= replayed:
                del positions[0]
            if len(positions) > _MOST_KEPT:  # a standby that does not catch up
                del positions[1::2]
            since, position = positions[0]
        if at <= replayed:
            return Lag(0, 0.0)
        bounds = [] if position > replayed else [now - since]
        if standby.age_secs is not None:
            bounds.append(max(0.0, standby.age_secs))
        return Lag(at - replayed, min(bounds, default=None))
