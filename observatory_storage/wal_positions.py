"""Positions in the write-ahead log: what the primary has committed, and how far a standby is."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from observatory_storage.errors import StorageError, Timeout, ValidationError, translated

__all__ = [
    "WalState",
    "checked_lsn",
    "current_lsn",
    "lsn_number",
    "wait_for",
]

_log: Final = logging.getLogger(__name__)
_LSN: Final = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
# Of a primary, the end of what is flushed: a commit is told when it is, and the end of a record is
# what a standby reports. Where commits are told before, the end of what has been inserted.
_POSITION: Final = sa.case(
    (sa.func.pg_is_in_recovery(), sa.func.pg_last_wal_replay_lsn()),
    (
        sa.func.current_setting(sa.literal_column("'synchronous_commit'"))
        == sa.literal_column("'off'"),
        sa.func.pg_current_wal_insert_lsn(),
    ),
    else_=sa.func.pg_current_wal_flush_lsn(),
)
# It has no parameters, so psycopg sends it by the simple protocol. After a statement with
# parameters, a transaction keeps its snapshot until the next one. Whoever waits for replay in that
# way keeps replay from removing dead rows, and waits until the standby ends the transaction.
_LSN_NOW: Final = sa.cast(_POSITION, sa.Text)
_SERVER: Final = sa.select(
    sa.func.current_setting("server_version"),
    sa.func.pg_is_in_recovery(),
)
_STATE: Final = _SERVER.add_columns(
    _LSN_NOW,
    sa.cast(sa.func.pg_last_wal_receive_lsn(), sa.Text),
    sa.func.extract("epoch", sa.func.clock_timestamp() - sa.func.pg_last_xact_replay_timestamp()),
)
_FIRST_PAUSE_SECS, _LONGEST_PAUSE_SECS = 0.001, 0.05


@dataclass(frozen=True, slots=True)
class WalState:
    """What a server says of itself.

    Attributes:
        version: its version.
        is_standby: whether it replays what another server commits.
        lsn: how far it is: what a primary has flushed, or a standby has replayed; None if it was
            not asked, or knows no positions.
        received: how far a standby has received the log; None for a primary, and for a standby that
            has not been connected to one since it was started.
        age_secs: the seconds since the primary committed the last transaction that a standby has
            replayed; None if there was none yet.
    """

    version: str
    is_standby: bool
    lsn: str | None
    received: str | None
    age_secs: float | None

    @classmethod
    def of(cls, connection: sa.Connection) -> WalState:
        """Ask the server. One without positions, such as Aurora, refuses, with an error."""
        version, is_standby, lsn, received, age = connection.execute(_STATE).one()
        return cls(version, is_standby, lsn, received, None if age is None else float(age))

    @classmethod
    def of_any(cls, connection: sa.Connection, *, positions: bool) -> WalState:
        """Ask a server that may know no positions.

        If it refuses to tell them, the transaction is to be rolled back.

        Args:
            connection: to the server.
            positions: whether to ask for more than the version and the role.
        """
        version, is_standby = connection.execute(_SERVER).one()
        if positions:
            try:
                with translated():
                    return cls.of(connection)
            except StorageError as error:
                _log.debug("the server does not tell its positions: %s", error)
        return cls(version, is_standby, lsn=None, received=None, age_secs=None)


def current_lsn(connection: sa.Connection) -> str | None:
    """The position behind everything that has been committed; on a standby, what is replayed."""
    lsn: str | None = connection.scalar(sa.select(_LSN_NOW))
    return lsn


def checked_lsn(field: str, value: Any) -> str:
    """Check a position, and return it.

    Raises:
        ValidationError: it is none.
    """
    if not isinstance(value, str) or not _LSN.fullmatch(value):
        raise ValidationError(field, value, "must be a FlushResult, or an LSN such as 0/16B3748")
    return value


def lsn_number(lsn: str) -> int:
    """The position as the number of bytes before it."""
    high, _, low = lsn.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def wait_for(connection: sa.Connection, lsn: str, timeout_secs: float) -> None:
    """Wait until the server is at the position.

    Raises:
        Timeout: it was not in time. It is retryable.
    """
    deadline = time.monotonic() + timeout_secs
    wanted = lsn_number(lsn)
    pause = _FIRST_PAUSE_SECS
    while True:
        at = current_lsn(connection)
        if at is not None and lsn_number(at) >= wanted:
            return
        left = deadline - time.monotonic()
        if left <= 0:
            raise Timeout(
                f"the read server is at {at or 'no position'} and has not reached {lsn}, which was"
                f" committed before, within {timeout_secs:g} s",
                retryable=True,
            )
        time.sleep(min(pause, left))
        pause = min(2 * pause, _LONGEST_PAUSE_SECS)
