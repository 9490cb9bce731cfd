"""Iterates over the entries of a live stream."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, Generic, Literal, Self, TypeVar

from observatory_storage.circuit_breaker import CircuitBreaker
from observatory_storage.errors import CacheError
from observatory_storage.serialization import Result
from observatory_storage.streams.chunks import Chunk, decode_chunk
from observatory_storage.streams.entry_sources import EntrySource, RawEntry
from observatory_storage.streams.row_selection import Selection
from observatory_storage.streams.stream_client import BLOCK_SECS
from observatory_storage.streams.streamed_signals import Signal

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["LiveStream", "StreamEntry", "StreamGap"]

_log = logging.getLogger(__name__)
T = TypeVar("T")
R = TypeVar("R")

# Entries of a publisher may come twice, but not after more than these others of it.
_REMEMBERED: Final = 256
_MOST_PUBLISHERS: Final = 1_000
# Errors of a server that is starting, has become a replica, or has lost the stream meanwhile.
_TRANSIENT: Final = ("LOADING", "READONLY", "MASTERDOWN", "UNBLOCKED", "OOM", "CLUSTERDOWN")


@dataclass(frozen=True, slots=True)
class StreamEntry(Result, Generic[T]):
    """A published row.

    Attributes:
        id: the position after this row, from which another `StoragePool.stream` can resume.
        row: the row, detached. Reading a column that was not published raises `StorageError`.
    """

    id: str
    row: T

    @property
    def published_at(self) -> datetime:
        """When it was published, by the clock of Redis."""
        milliseconds = int(self.id.partition("-")[0])
        return datetime.fromtimestamp(milliseconds / 1000, UTC)


@dataclass(frozen=True, slots=True)
class StreamGap(Result):
    """Rows that are stored and that the stream does not have.

    Attributes:
        reason: ``"lost"``: a publisher could not publish them. ``"missing"``: entries were trimmed
            before they were read, Redis has lost them, or it did not answer when a stream of new
            rows was opened.
        rows: how many rows; None if that is not known.
    """

    reason: Literal["lost", "missing"]
    rows: int | None


class LiveStream(Generic[T]):
    """The entries of a stream, as they are published. `StoragePool.stream` makes it.

    It waits for entries, and reconnects when Redis does not answer. It is a context manager, which
    closes its connection. Do not share it between threads.

    Attributes:
        gaps: how many gaps were seen.
    """

    def __init__(
        self,
        client: Redis,
        signal: Signal,
        source: EntrySource,
        selection: Selection,
        *,
        timeout_secs: float | None,
        on_gap: Callable[[StreamGap], object] | None,
    ) -> None:
        self._client = client
        self._signal = signal
        self._source = source
        self._selection = selection
        self._timeout = timeout_secs
        self._on_gap = on_gap
        self._seen: dict[str, deque[int]] = {}
        self._breaker = CircuitBreaker(failures=1, pause_secs=0.05, max_pause_secs=2.0)
        self._entries = self._iterate()
        self._is_closed = False
        self.gaps = 0
        self._call(source.begin)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StreamEntry[T]:
        return next(self._entries)

    def close(self) -> None:
        """Acknowledge what was handled, if Redis answers, and close the connection.

        A consumer without a name that holds nothing more is deleted.
        """
        if not self._is_closed:
            self._is_closed = True
            self._entries.close()
            self._call(self._source.send_done)
            self._call(self._source.leave)
            self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _iterate(self) -> Generator[StreamEntry[T]]:
        last = time.monotonic()
        while True:
            wait = BLOCK_SECS
            if self._timeout is not None:
                left = last + self._timeout - time.monotonic()
                if left <= 0:
                    return
                wait = min(wait, left)
            self._call(self._source.send_done)
            for raw in self._call(partial(self._source.read, wait_secs=wait), wait) or ():
                for entry in self._rows(raw):
                    yield entry
                    last = time.monotonic()
                self._source.done(raw.id)

    def _rows(self, raw: RawEntry) -> Iterator[StreamEntry[T]]:
        if raw.content is None:
            self._tell(StreamGap("missing", None))
            return
        chunk = decode_chunk(self._signal, raw.content)
        if chunk is None:
            _log.warning("an entry was published by a later version: it is skipped")
            return
        if not self._is_new(chunk):
            return
        for index, row in self._selection.chosen(chunk.rows, raw.first):
            yield StreamEntry(f"{raw.id}:{index + 1}", row)
            self._call(partial(self._source.keep, entry_id=raw.id))

    def _is_new(self, chunk: Chunk) -> bool:
        """Whether the entry has not been seen before. It tells of what is missing before it."""
        seen = self._seen.get(chunk.publisher)
        if seen is not None and chunk.sequence in seen:
            return False  # the publisher did not know whether Redis had taken it
        if chunk.lost:
            self._tell(StreamGap("lost", chunk.lost))
        if seen is None:
            if len(self._seen) == _MOST_PUBLISHERS:
                del self._seen[next(iter(self._seen))]
            self._seen[chunk.publisher] = deque([chunk.sequence], _REMEMBERED)
            return True
        if self._source.has_all and chunk.sequence > max(seen) + 1:
            self._tell(StreamGap("missing", None))
        seen.append(chunk.sequence)
        return True

    def _call(self, action: Callable[[Redis], R], wait_secs: float = 0.0) -> R | None:
        """The result of an action, or None if Redis does not answer.

        Raises:
            CacheError: Redis refuses it.
        """
        from redis import RedisError, ResponseError

        if not self._breaker.allows_call():
            time.sleep(min(wait_secs, self._breaker.remaining_secs))
            return None
        try:
            result = action(self._client)
        except RedisError as error:
            if isinstance(error, ResponseError) and not str(error).startswith(_TRANSIENT):
                name = self._signal.name
                raise CacheError(f"the stream of {name} cannot be read: {error}") from error
            if not self._breaker.is_open:
                _log.warning("the stream waits for Redis: %s", error)
            self._breaker.failed()
            self._source.reconnected()
            return None
        self._breaker.succeeded()
        return result

    def _tell(self, gap: StreamGap) -> None:
        self.gaps += 1
        if self._on_gap is not None:
            self._on_gap(gap)
            return
        name, rows = self._signal.name, "unknown" if gap.rows is None else gap.rows
        _log.warning("the stream of %s has a gap: %s rows are %s", name, rows, gap.reason)
