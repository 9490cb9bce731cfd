"""Follows rows as they are stored. PostgreSQL decides which rows come; Redis says when to ask.

A tail polls PostgreSQL by its cursor, so that it returns each row once, whatever Redis does. If
Redis is configured, an entry of the live stream starts the next poll at once.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from observatory_storage.backoff import pause_secs
from observatory_storage.circuit_breaker import CircuitBreaker
from observatory_storage.config import STREAM_SIGNALS
from observatory_storage.errors import ReadOnly, StorageError
from observatory_storage.repositories.reading import validation
from observatory_storage.repositories.reading.pages import Page
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.repositories.traces.span_tail import poll_traces
from observatory_storage.streams.row_selection import FILTERS
from observatory_storage.streams.stream_client import BLOCK_SECS, stream_client
from observatory_storage.streams.stream_opening import StreamStore, callback, seconds
from observatory_storage.streams.streamed_signals import STREAMED, key_prefix
from observatory_storage.unit_of_work import UnitOfWork

if TYPE_CHECKING:
    from redis import Redis

__all__ = ["follow"]

_log = logging.getLogger(__name__)

# Each poll reads the rows of the last minute by an index, so it should return many.
_ROWS_AT_ONCE: Final = 1_000
# Many small commits shall not cause a poll each. A row that has not settled is asked for again
# after this time, and then after twice the time.
_SHORTEST_PAUSE_SECS: Final = 0.05


def follow(
    store: StreamStore,
    signal: Any,
    filters: Any,
    fields: Mapping[str, Any],
    *,
    cursor: str | None,
    payload: bool,
    poll_interval: Any,
    timeout: Any,
    on_error: Callable[[StorageError], object] | None,
) -> Generator[Page[Any]]:
    """Check the arguments of `StoragePool.tail`, and return its pages."""
    validation.required_text("signal", signal)
    validation.choice("signal", signal, STREAM_SIGNALS)
    callback("on_error", on_error)
    return _pages(
        store,
        signal,
        FILTERS[signal].of(filters, fields),
        cursor,
        payload=payload,
        interval=seconds("poll_interval", poll_interval),
        timeout=None if timeout is None else seconds("timeout", timeout),
        on_error=on_error or _log_error,
    )


def _pages(
    store: StreamStore,
    signal: Any,
    filters: Any,
    cursor: str | None,
    *,
    payload: bool,
    interval: float,
    timeout: float | None,
    on_error: Callable[[StorageError], object],
) -> Generator[Page[Any]]:
    pause, failures, last_row = _SHORTEST_PAUSE_SECS, 0, time.monotonic()
    is_first, has_followed = cursor is None, False
    if not is_first:
        filters = replace(filters, limit=max(filters.limit, _ROWS_AT_ONCE))
    with closing(_Alarm(store, signal)) as alarm:
        while True:
            is_last = filters.end_time is not None and filters.end_time <= datetime.now(UTC)
            try:
                page = _poll(store, signal, cursor, filters, payload=payload)
            except StorageError as error:
                # A standby: after a failover, the address leads to the new primary some time later.
                # If it has never led to one, it is wrong.
                is_failover = has_followed and isinstance(error, ReadOnly)
                if not (error.retryable or is_failover):
                    raise
                on_error(error)
                failures += 1
                if is_last and failures >= store.config.retry.max_attempts:
                    raise  # rows before `end_time` may be left: nobody must take this for the end
                left = math.inf if timeout is None else last_row + timeout - time.monotonic()
                if left <= 0:
                    return
                wait = max(pause_secs(store.config.retry, failures), _SHORTEST_PAUSE_SECS)
                time.sleep(min(wait, left))
                continue
            is_back, failures, has_followed = failures > 0, 0, True
            is_full = len(page.rows) >= filters.limit
            if page.rows or is_first or is_back:
                yield page
                last_row, pause = time.monotonic(), _SHORTEST_PAUSE_SECS
            # The position moves even if nothing is found.
            cursor = page.next
            if is_first:
                filters = replace(filters, limit=max(filters.limit, _ROWS_AT_ONCE))
                is_first = False
            elif is_full:
                continue
            if is_last or (timeout is not None and time.monotonic() - last_row >= timeout):
                return
            if alarm.wait(min(interval, pause)):
                pause = _SHORTEST_PAUSE_SECS
            else:
                pause = min(2 * pause, interval)


def _poll(
    store: StreamStore, signal: Any, cursor: str | None, filters: Any, *, payload: bool
) -> Page[Any]:
    with store.unit_of_work() as work:
        try:
            return _poll_within(work, signal, cursor, filters, payload=payload)
        except ReadOnly:
            # The next attempt shall not meet this standby again, but where the address leads then.
            work.session.invalidate()
            raise


def _poll_within(
    work: UnitOfWork, signal: Any, cursor: str | None, filters: Any, *, payload: bool
) -> Page[Any]:
    match signal:
        case "spans":
            return work.traces.tail_spans(cursor, filters, payload=payload)
        case "logs":
            return work.logs.tail(cursor, filters, payload=payload)
        case "data_points":
            return work.metrics.tail_data_points(cursor, filters)
        case _:
            return poll_traces(Reader(work.session), cursor, filters)


class _Alarm:
    """Waits for entries of a live stream, or sleeps if there is none."""

    def __init__(self, store: StreamStore, signal: Any) -> None:
        self._key = STREAMED[signal].key(key_prefix(store.engine, store.schema))
        self._after: Any = None
        self._breaker = CircuitBreaker(failures=1, pause_secs=0.2, max_pause_secs=5.0)
        has_redis = store.config.redis.url is not None
        self._client = stream_client(store.config.redis, blocks=True) if has_redis else None

    def wait(self, wait_secs: float) -> bool:
        """Wait for so long; True if rows were published meanwhile."""
        began = time.monotonic()
        ends = began + wait_secs
        while (left := ends - time.monotonic()) > 0:
            if self._client is None or not self._breaker.allows_call():
                time.sleep(min(left, self._breaker.remaining_secs or left))
            elif self._was_published(self._client, min(left, BLOCK_SECS)):
                time.sleep(max(0, began + _SHORTEST_PAUSE_SECS - time.monotonic()))
                return True
        return False

    def _was_published(self, client: Redis, wait_secs: float) -> bool:
        from redis import RedisError

        try:
            if self._after is None:
                self._after = self._newest(client)
            milliseconds = max(1, int(wait_secs * 1000))
            found = client.xread({self._key: self._after}, count=1, block=milliseconds)
            if found:
                self._after = self._newest(client)
        except RedisError as error:
            _log.debug("Redis does not say when there are rows: %s", error)
            self._breaker.failed()
            return False
        self._breaker.succeeded()
        return bool(found)

    def _newest(self, client: Any) -> Any:
        newest = client.xrevrange(self._key, count=1)
        return newest[0][0] if newest else "0"

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


def _log_error(error: StorageError) -> None:
    _log.warning("the tail waits for the database: %s", error)
