"""Reads values through the cache: PostgreSQL is asked by one reader for each value."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final, NamedTuple, Protocol, TypeVar

import sqlalchemy as sa

from observatory_storage.cache.client import Refused, Unavailable
from observatory_storage.cache.counters import CacheCounters
from observatory_storage.cache.scopes import Dependency
from observatory_storage.cache.stored_value import DamagedValue, StoredValue, packed, unpacked
from observatory_storage.cache.value_store import Peek, ValueStore, mark_of
from observatory_storage.config import CacheConfig

__all__ = ["CachedRead", "OutOfDate", "ReadThrough"]

_log = logging.getLogger(__name__)
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_FIRST_POLL_SECS, _LONGEST_POLL_SECS = 0.002, 0.02
# How long the first read of a kind is taken to last, until one has been measured.
_FIRST_GUESS_SECS: Final = 0.02
_MOST_WAITING_SECS: Final = 1.0
# A value may be so many times larger than its compressed form.
_BODY_FACTOR: Final = 64


class OutOfDate(Exception):
    """A stored value is not that of the rows any more."""


class CachedRead(Protocol[T_co]):
    """How one value is read.

    Attributes:
        tag: tells the types of the body, as `stored_value.tag_of` makes it.
    """

    @property
    def tag(self) -> bytes: ...

    def depends_on(self, stored: StoredValue) -> Dependency | None:
        """What may stay as it is, so that `verify` need not be called again soon.

        None if it has to be called in any case.
        """

    def verify(self, stored: StoredValue) -> None:
        """Compare a stored value that depends on no generation with the rows.

        Raises:
            OutOfDate: it is not that of the rows any more.
            DamagedValue: it cannot be read.
        """

    def open(self, stored: StoredValue) -> T_co:
        """The value that is stored.

        Raises:
            DamagedValue: it cannot be read.
        """

    def ask(self) -> T_co:
        """The value, from PostgreSQL."""

    def fill(self) -> tuple[T_co, StoredValue | None]:
        """The value, from PostgreSQL, and as it is stored; None if it must not be stored."""


class _Found(NamedTuple):
    """What the cache has for a reader.

    Attributes:
        values: the value, if there is one that is up to date.
        lease: the right to fill it, if this reader has got that.
        generation: what the generations were before.
    """

    values: tuple[object, ...] = ()
    lease: bytes | None = None
    generation: bytes = b""


class ReadThrough:
    """The cache as repositories see it.

    Args:
        store: what is kept in Redis.
        counters: counts what is done.
        config: the settings.
        ttls: how long values are kept, by kind.
    """

    def __init__(
        self,
        store: ValueStore,
        counters: CacheCounters,
        config: CacheConfig,
        ttls: Mapping[str, timedelta],
    ) -> None:
        self._store = store
        self._counters = counters
        self._config = config
        self._ttls = ttls
        self._took_secs: dict[str, float] = {}

    def caches(self, kind: str) -> bool:
        """Whether values of the kind are cached."""
        return bool(self._ttls[kind])

    def read(
        self,
        kind: str,
        name: str,
        read: CachedRead[T],
        connect: Callable[[], sa.Connection],
        dependency: Dependency | None = None,
    ) -> T:
        """The value: the stored one if it is up to date, else that of PostgreSQL.

        Redis costs no answer: if it fails in any way, PostgreSQL is asked.

        Args:
            kind: the kind of the value.
            name: names the value.
            read: how it is read.
            connect: gives a connection, with which the database is asked who it is, once.
            dependency: what the value depends on; None if `read` tells by itself whether it is up
                to date.
        """
        if not self._store.is_known:
            self._store.learn(connect())
        began = self._counters.began()
        try:
            found = self._find(kind, name, read, dependency, began)
        except Refused as error:
            _log.debug("Redis refuses to store: %s", error)
            self._counters.count(kind, "misses", began)
            self._counters.count(kind, "refused", began)
            return read.ask()
        except Unavailable as error:
            _log.debug("Redis is not used: %s", error)
            self._counters.count(kind, "errors", began, failure=error)
            return read.ask()
        if found.values:
            self._counters.count(kind, "hits", began)
            value: T = found.values[0]  # type: ignore[assignment]  # as `read` has opened it
            return value
        if found.lease is None:
            return read.ask()
        return self._fill(kind, name, read, found)

    def _find(
        self,
        kind: str,
        name: str,
        read: CachedRead[T],
        dependency: Dependency | None,
        began: float,
    ) -> _Found:
        peek = self._store.peek(name, dependency)
        if peek.is_pending and dependency is not None:
            self._counters.count(kind, "bypassed", began)
            return _Found()
        if values := self._opened(kind, name, read, dependency, peek):
            return _Found(values)
        lease, content = self._store.lease(name)
        if lease is None:
            values = self._wait(kind, name, read, dependency, peek)
        elif content != peek.content:  # somebody has stored it a moment ago
            values = self._opened(kind, name, read, dependency, peek._replace(content=content))
            if values:
                self._store.release(name, lease)
        if values:
            self._counters.count(kind, "waited")
            return _Found(values)
        self._counters.count(kind, "misses", began)
        return _Found((), lease, b"" if dependency is None else peek.generation)

    def _opened(
        self,
        kind: str,
        name: str,
        read: CachedRead[T],
        dependency: Dependency | None,
        peek: Peek,
    ) -> tuple[T, ...]:
        """The stored value; empty if there is none that is up to date."""
        if peek.content is None:
            return ()
        try:
            stored = self._unpacked(read, peek.content)
            if dependency is None:
                self._verify(name, read, stored, peek)
            elif stored.check != peek.generation:
                return ()
            return (read.open(stored),)
        except OutOfDate:
            return ()
        except DamagedValue as error:
            _log.debug("a cached value is not read: %s", error)
            self._counters.count(kind, "damaged")
            return ()

    def _verify(self, name: str, read: CachedRead[T], stored: StoredValue, peek: Peek) -> None:
        """Compare the value with its rows, unless that was done a moment ago.

        It is not done again while the generations stay as they were before it was done last, and
        nobody is committing.
        """
        dependency = read.depends_on(stored) if self._config.traces_recheck else None
        if dependency is None:
            read.verify(stored)
            return
        now = self._store.peek_with(name, dependency, peek)
        if now.is_pending:
            read.verify(stored)
            return
        mark = mark_of(now.generation, stored.check)
        if now.verified != mark:
            read.verify(stored)
            self._store.mark_verified(name, mark, self._config.traces_recheck)

    def _wait(
        self,
        kind: str,
        name: str,
        read: CachedRead[T],
        dependency: Dependency | None,
        first: Peek,
    ) -> tuple[T, ...]:
        """The value that another reader is filling, unless that takes longer than to read it."""
        expected = self._took_secs.get(kind, _FIRST_GUESS_SECS)
        if first.content is not None:
            try:
                expected = self._unpacked(read, first.content).took_ms / 1000
            except DamagedValue:
                _log.debug("it is not known how long it takes to read a value")
        deadline = time.monotonic() + min(expected, _MOST_WAITING_SECS)
        pause = _FIRST_POLL_SECS
        while time.monotonic() < deadline:
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_POLL_SECS)
            peek = self._store.peek(name, dependency)
            if peek.is_pending and dependency is not None:
                break
            if peek.content != first.content or (
                dependency is not None and peek.generation != first.generation
            ):
                values = self._opened(kind, name, read, dependency, peek)
                if values:
                    return values
        return ()

    def _fill(self, kind: str, name: str, read: CachedRead[T], found: _Found) -> T:
        assert found.lease is not None
        started = time.monotonic()
        stored: StoredValue | None = None
        try:
            value, stored = read.fill()
        finally:
            took = time.monotonic() - started
            self._took_secs[kind] = 0.8 * self._took_secs.get(kind, took) + 0.2 * took
            content = None
            if stored is not None:
                check = found.generation or stored.check
                content = packed(read.tag, StoredValue(check, stored.body, int(1000 * took)))
            self._keep(kind, name, found.lease, content)
        return value

    def _keep(self, kind: str, name: str, lease: bytes, content: bytes | None) -> None:
        """Store the value, or give the lease back."""
        outcome, failure = None, None
        began = self._counters.began()
        if content is not None and len(content) > self._config.max_value_bytes:
            outcome, content = "too_large", None
        try:
            if content is None:
                self._store.release(name, lease)
            elif self._store.store(name, lease, content, self._ttls[kind]):
                outcome = "stored"
            else:
                outcome = "outdated"
        except Refused:
            outcome = "refused"
        except Unavailable as error:
            outcome, failure = "errors", error
        if outcome is not None:
            self._counters.count(kind, outcome, began, failure=failure)

    def _unpacked(self, read: CachedRead[T], content: bytes) -> StoredValue:
        return unpacked(read.tag, content, _BODY_FACTOR * self._config.max_value_bytes)
