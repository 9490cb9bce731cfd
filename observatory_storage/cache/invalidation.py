"""Takes back cached values when rows are committed.

Before a commit, the generations that it ends get new names, and the commit is noted as pending: so
no reader uses or stores a value that depends on them until the commit is done. After it, they get
new names once more, and the values of the traces are removed. If a process dies in between, its
note expires.

The writer waits for Redis, but not for long. If Redis does not answer, the rows are committed all
the same. Then this is made up for as soon as Redis answers: a thread ends all generations at once.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from observatory_storage.cache.client import CacheClient, Refused, Unavailable
from observatory_storage.cache.counters import CacheCounters
from observatory_storage.cache.keyspace import Keyspace
from observatory_storage.cache.scopes import scopes_of
from observatory_storage.changed_spans import noted_changes
from observatory_storage.commits import Commit
from observatory_storage.processes import PerProcess
from observatory_storage.tables import EVENTS, SPANS, TRACES

__all__ = ["Invalidation", "new_generation"]

_log = logging.getLogger(__name__)

# A commit takes less, unless its server stands still.
_PENDING_SECS: Final = 30
_RETRY_SECS: Final = 1.0
# Longer than one attempt takes: connecting, and an answer.
_CLOSING_SECS: Final = 5.0
_KEYS_AT_A_TIME: Final = 500
# The values of more traces stay until they expire: they are compared with their rows on each read.
_MOST_TRACES: Final = 2_000
# That of the value, and that of its lease.
_NAMES_OF_TRACE: Final = 2
_TRACE_ID: Final = {
    TRACES.name: TRACES.position["id"],
    SPANS.name: SPANS.position["trace_id"],
    EVENTS.name: EVENTS.position["trace_id"],
}


def new_generation() -> bytes:
    """The name of a generation, which no other one has had."""
    return secrets.token_bytes(9)


class _Debt:
    """What one process has not been able to take back so far.

    Attributes:
        names: the values of traces, with their leases.
        is_of_all: whether the values of all traces are taken back, since there were too many names.
        since: when the last commit failed to take its values back; None if nothing is owed.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.names: set[str] = set()
        self.is_of_all = False
        self.since: float | None = None
        self.thread: threading.Thread | None = None


class Invalidation:
    """Called before and after each commit: a `CommitGuard`.

    Args:
        client: the client that commits wait for.
        keys: the keys of the schema.
        counters: counts what is done.
        longest_ttl: the time after which every value has expired.
        with_generations: whether values are cached that depend on generations.
    """

    def __init__(
        self,
        client: CacheClient,
        keys: Keyspace,
        counters: CacheCounters,
        longest_ttl: timedelta,
        *,
        with_generations: bool,
    ) -> None:
        self._client = client
        self._keys = keys
        self._counters = counters
        self._longest_secs = longest_ttl.total_seconds()
        self._with_generations = with_generations
        self._debt = PerProcess(_Debt)
        self._closed = threading.Event()

    @property
    def is_behind(self) -> bool:
        """Whether this process has committed rows, and could not say so."""
        return self._debt.get().since is not None

    @property
    def generation_age(self) -> timedelta:
        """How long generations are kept: longer than all values that depend on them."""
        return timedelta(hours=1, seconds=2 * self._longest_secs)

    def before_commit(
        self, connection: sa.Connection, commits: Sequence[Commit]
    ) -> Callable[[], None] | None:
        self._keys.learn(connection)
        noted = noted_changes(connection)
        scopes: set[str] = set()
        if self._with_generations:
            for commit in commits:
                scopes |= scopes_of(commit, noted)
        traces = _traces_of(commits)
        if not scopes and not traces:
            return None
        members = [f"{secrets.token_hex(8)}|{scope}".encode() for scope in scopes]
        is_noted = False
        try:
            if members:
                self._begin(scopes, members)
            is_noted = True
        except (Refused, Unavailable) as error:
            _log.debug("could not tell Redis of a commit: %s", error)
        return lambda: self._finish(scopes, members, traces, is_noted=is_noted)

    def end_all(self) -> None:
        """End all generations.

        Raises:
            Refused, Unavailable: Redis did not do it.
        """
        self._client.run(self._setting(["epoch"]))

    def close(self) -> None:
        """Have the thread try once more, and warn of what stays in Redis."""
        self._closed.set()
        debt = self._debt.get()
        thread = debt.thread
        if thread is not None:
            thread.join(_CLOSING_SECS)
        with debt.lock:
            if debt.since is None:
                return
            left = debt.since + self._longest_secs - time.monotonic()
            whose = "all" if debt.is_of_all else f"{len(debt.names) // _NAMES_OF_TRACE}"
        _log.warning(
            "cached values could not be taken back before the pool was closed: statistics, and"
            " those of %s trace(s), erased ones included, may stay in Redis until %s;"
            " cache.clear() of another pool removes them",
            whose,
            (datetime.now(UTC) + timedelta(seconds=left)).isoformat(timespec="seconds"),
        )

    def _begin(self, scopes: set[str], members: list[bytes]) -> None:
        pending = self._key("pending")
        expires = self._client.now() + _PENDING_SECS
        added = chain.from_iterable((expires, member) for member in members)
        try:
            self._client.run(
                [
                    ("ZREMRANGEBYSCORE", pending, "-inf", self._client.now()),
                    ("ZADD", pending, *added),
                    ("EXPIRE", pending, 2 * _PENDING_SECS),
                    *self._setting(scopes),
                ]
            )
        except Refused:
            # Memory is full. Without generations nothing that depends on them is stored or used.
            self._client.run(list(self._removing({f"g:{scope}" for scope in scopes})))

    def _finish(
        self, scopes: set[str], members: list[bytes], traces: set[UUID], *, is_noted: bool
    ) -> None:
        began = self._counters.began()
        names = {name for trace in traces for name in (f"t:{trace.hex}", f"t:{trace.hex}:lease")}
        try:
            commands = list(self._removing(names))
            if members:
                commands.append(("ZREM", self._key("pending"), *members))
            try:
                self._client.run([*commands, *self._setting(scopes)])
            except Refused:
                gone = self._removing({f"g:{scope}" for scope in scopes})
                self._client.run([*commands, *gone])
        except (Refused, Unavailable) as error:
            self._counters.count("commits", "failed", began, failure=error)
            # Each further commit fails as well until Redis answers.
            level = logging.WARNING if self._owe(names) else logging.DEBUG
            _log.log(level, "cached values could not be taken back, trying again: %s", error)
        else:
            self._counters.count("commits", "told" if is_noted else "late", began)

    def _setting(self, scopes: Any) -> list[tuple[Any, ...]]:
        keep = ("EX", int(self.generation_age.total_seconds()))
        return [("SET", self._key(f"g:{scope}"), new_generation(), *keep) for scope in scopes]

    def _removing(self, names: set[str]) -> Iterator[tuple[Any, ...]]:
        keys = [self._key(name) for name in names]
        for start in range(0, len(keys), _KEYS_AT_A_TIME):
            yield ("UNLINK", *keys[start : start + _KEYS_AT_A_TIME])

    def _key(self, name: str) -> bytes:
        return self._keys.key(self._client.server(), name)

    def _owe(self, names: set[str]) -> bool:
        """Take the values back later. Return whether nothing was owed before."""
        debt = self._debt.get()
        with debt.lock:
            is_first = debt.since is None
            debt.since = time.monotonic()
            if not debt.is_of_all:
                debt.names |= names
            if len(debt.names) > _NAMES_OF_TRACE * _MOST_TRACES:
                debt.names.clear()
                debt.is_of_all = True
            if debt.thread is None:
                debt.thread = threading.Thread(
                    target=self._repay, args=(debt,), name="cache-invalidation", daemon=True
                )
                debt.thread.start()
        return is_first

    def _repay(self, debt: _Debt) -> None:
        """Try again until it succeeds, or until all values have expired."""
        is_closing = False
        while not is_closing:
            is_closing = self._closed.wait(_RETRY_SECS)
            with debt.lock:
                names, is_of_all, since = set(debt.names), debt.is_of_all, debt.since
            is_over = since is None or time.monotonic() - since > self._longest_secs
            try:
                if not is_over:
                    self._client.run([*self._setting(["epoch"]), *self._removing(names)])
                    if is_of_all:
                        self._client.unlink(self._keys.pattern("*:t:*"), besides=b":verified")
            except Exception as error:  # noqa: BLE001 - whatever it is, the values are still owed
                _log.debug("cached values could still not be taken back: %s", error)
                continue
            with debt.lock:
                if debt.since == since:
                    debt.names.clear()
                    debt.is_of_all = False
                    debt.since = debt.thread = None
                    _log.info("cached values that were owed have been taken back, or have expired")
                    return
        with debt.lock:
            debt.thread = None


def _traces_of(commits: Sequence[Commit]) -> set[UUID]:
    """The traces whose values are removed: all that were deleted, and a number of written ones."""
    written = {
        row.values[_TRACE_ID[row.table]]
        for commit in commits
        for row in commit.rows
        if row.table in _TRACE_ID
    }
    deleted = {key for commit in commits for change in commit.changes for key in change.traces}
    return deleted | (written if len(written) <= _MOST_TRACES else set())
