"""Where a reader gets entries from: the stream itself, or its share as a consumer of a group.

Both return the ids of entries with their content, and raise redis-py's errors.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, ClassVar, Final, NamedTuple, Protocol

from observatory_storage.streams.chunks import ROWS_FIELD

__all__ = ["ConsumerSource", "EntrySource", "RawEntry", "StreamSource"]

_ENTRIES_AT_ONCE: Final = 10
# A client of redis-py, whose annotations of answers differ from release to release.
Client = Any


class RawEntry(NamedTuple):
    """An entry as it is in Redis.

    Attributes:
        id: its id.
        content: its rows; None if it was trimmed before it was read.
        first: the index of the first row that is wanted.
    """

    id: str
    content: bytes | None
    first: int = 0


class EntrySource(Protocol):
    """Where entries come from.

    Attributes:
        has_all: whether it returns all entries of the stream.
    """

    has_all: ClassVar[bool]

    def begin(self, client: Client) -> None:
        """Note where to begin. If Redis does not answer, the first call of `read` does so.

        What was published until then is missing if the stream begins with new entries.
        """

    def read(self, client: Client, wait_secs: float) -> list[RawEntry]:
        """The next entries; none if none came within this time."""

    def keep(self, client: Client, entry_id: str) -> None:
        """Tell that the entry is still being handled."""

    def done(self, entry_id: str) -> None:
        """Note that the entry was handled."""

    def send_done(self, client: Client) -> None:
        """Tell Redis which entries were handled."""

    def leave(self, client: Client) -> None:
        """Leave nothing in Redis that nobody needs any more."""

    def reconnected(self) -> None:
        """Note that the connection was lost, and with it perhaps entries."""


class StreamSource:
    """All entries of a stream after a position.

    Args:
        key: the stream.
        after: an id, ``$`` for new entries only, or ``0``.
        first: the index of the first wanted row of the entry `after`, if some are wanted.
    """

    has_all: ClassVar[bool] = True

    def __init__(self, key: str, after: str, first: int = 0) -> None:
        self._key = key
        self._after = after
        self._first = first
        # The entry at the position is read again: if it is not there any more, others may be
        # missing too.
        self._checks = "-" in after

    def begin(self, client: Client) -> None:
        if self._after == "$":
            last = client.xrevrange(self._key, count=1)
            self._after = last[0][0].decode() if last else "0"

    def read(self, client: Client, wait_secs: float) -> list[RawEntry]:
        if self._after == "$":  # Redis did not answer when the stream was opened
            self.begin(client)
            return [RawEntry(self._after, None)]
        if self._checks:
            found = client.xrange(self._key, self._after, self._after)
            self._checks, first, self._first = False, self._first, 0
            if not found:
                missing, newest = self._after, client.xrevrange(self._key, count=1)
                if newest and _number(newest[0][0].decode()) < _number(missing):
                    self._after = "0"  # Redis has lost everything, and its clock was set back
                return [RawEntry(missing, None)]
            if first:
                return [RawEntry(self._after, found[0][1].get(ROWS_FIELD), first)]
        found = client.xread(
            {self._key: self._after}, count=_ENTRIES_AT_ONCE, block=_milliseconds(wait_secs)
        )
        entries = [*_entries(found)]
        if entries:
            self._after = entries[-1].id
        return entries

    def keep(self, client: Client, entry_id: str) -> None:
        pass

    def done(self, entry_id: str) -> None:
        pass

    def send_done(self, client: Client) -> None:
        pass

    def leave(self, client: Client) -> None:
        pass

    def reconnected(self) -> None:
        self._checks = "-" in self._after


class ConsumerSource:
    """The entries that a group gives to one of its consumers.

    First the consumer gets what it was given before and has not acknowledged. Then it gets new
    entries and, from time to time, those that another consumer has held for too long.

    Args:
        key: the stream.
        after: where a new group begins: an id, ``$`` or ``0``.
        group: the group, which is created if it does not exist.
        consumer: the name of the consumer; None for a random one, which does not come back.
        claim_after_secs: how long another consumer may hold an entry.
    """

    has_all: ClassVar[bool] = False

    def __init__(
        self, key: str, after: str, group: str, consumer: str | None, claim_after_secs: float
    ) -> None:
        self._key = key
        self._after = after
        self._group = group
        self._is_anonymous = consumer is None
        self._consumer = consumer or _own_name()
        self._claim_after = claim_after_secs
        self._pending = "0-0"
        self._is_recovering = True
        self._next_claim = 0.0
        self._next_keep = 0.0
        self._done: list[str] = []
        self._existed = False

    def begin(self, client: Client) -> None:
        self._create(client, self._after)
        self._existed = True

    def read(self, client: Client, wait_secs: float) -> list[RawEntry]:
        from redis import ResponseError

        try:
            return self._read(client, wait_secs)
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
        existed, self._existed = self._existed, True
        self._create(client, "0" if existed else self._after)
        # If the group had existed, Redis has lost it, and perhaps entries. If not, Redis did not
        # answer when the stream was opened.
        return [RawEntry("0-0", None)] if existed or self._after == "$" else []

    def _read(self, client: Client, wait_secs: float) -> list[RawEntry]:
        if self._is_recovering:
            entries = self._own(client, self._pending, None)
            self._existed = True
            if entries:
                self._pending = entries[-1].id
                return entries
            self._is_recovering = False
        if time.monotonic() >= self._next_claim:
            claimed = self._claim(client)
            if claimed:
                return claimed
            self._next_claim = time.monotonic() + self._claim_after / 4
        wait = min(wait_secs, max(0.001, self._next_claim - time.monotonic()))
        entries = self._own(client, ">", wait)
        self._existed = True
        self._next_keep = time.monotonic() + self._claim_after / 4
        return entries

    def _own(self, client: Client, after: str, wait_secs: float | None) -> list[RawEntry]:
        # One entry at a time, so that the consumers share them evenly.
        block = None if wait_secs is None else _milliseconds(wait_secs)
        found = client.xreadgroup(
            self._group, self._consumer, {self._key: after}, count=1, block=block
        )
        return [*_entries(found)]

    def _claim(self, client: Client) -> list[RawEntry]:
        idle = _milliseconds(self._claim_after)
        _, found, *gone = client.xautoclaim(
            self._key, self._group, self._consumer, idle, start_id="0-0", count=1
        )
        trimmed = [RawEntry(each.decode(), None) for each in (gone[0] if gone else ())]
        return [*trimmed, *_entries([[self._key, found]])]

    def _create(self, client: Client, after: str) -> None:
        from redis import ResponseError

        try:
            client.xgroup_create(self._key, self._group, after, mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):  # another consumer was faster
                raise

    def keep(self, client: Client, entry_id: str) -> None:
        now = time.monotonic()
        if now >= self._next_keep:
            # Claiming it from itself sets its time back.
            client.xclaim(self._key, self._group, self._consumer, 0, [entry_id], justid=True)
            self._next_keep = now + self._claim_after / 4

    def done(self, entry_id: str) -> None:
        self._done.append(entry_id)

    def send_done(self, client: Client) -> None:
        if self._done:
            client.xack(self._key, self._group, *self._done)
            self._done.clear()

    def leave(self, client: Client) -> None:
        from redis import ResponseError

        if not self._is_anonymous:
            return
        # A consumer that is deleted takes its entries along: no other could claim them. If Redis
        # has lost the group, there is nothing to delete.
        with suppress(ResponseError):
            if not client.xpending_range(
                self._key, self._group, "-", "+", 1, consumername=self._consumer
            ):
                client.xgroup_delconsumer(self._key, self._group, self._consumer)

    def reconnected(self) -> None:
        # An answer may have been lost on the way: the entries in it are this consumer's.
        self._is_recovering, self._pending = True, "0-0"


def _own_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def _entries(found: Any) -> Iterable[RawEntry]:
    """The entries of an answer, in the forms of both protocols."""
    streams = found.items() if isinstance(found, dict) else found or ()
    for _, answer in streams:
        entries = answer[0] if isinstance(found, dict) and answer else answer
        for entry_id, fields in entries:
            content = fields.get(ROWS_FIELD) if fields else None
            yield RawEntry(entry_id.decode(), content)


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))


def _number(entry_id: str) -> tuple[int, ...]:
    return tuple(map(int, entry_id.split("-")))
