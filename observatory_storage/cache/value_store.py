"""What the cache keeps in Redis: values, leases of those who fill them, and marks."""

from __future__ import annotations

import hashlib
import secrets
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from observatory_storage.cache.client import CacheClient, Refused
from observatory_storage.cache.invalidation import Invalidation, new_generation
from observatory_storage.cache.keyspace import Keyspace
from observatory_storage.cache.scopes import Dependency

__all__ = ["Peek", "ValueStore", "mark_of"]

# The longest time that reading one value may take, so that it is stored.
_LEASE_MS: Final = 30_000
_MOST_LIKELY: Final = 10_000
# Stores a value if nobody has taken the lease away.
_STORE: Final = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('DEL', KEYS[2])
return 1
"""
_RELEASE: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class Peek(NamedTuple):
    """What Redis has of a value at one moment.

    Attributes:
        content: the stored value; None if there is none.
        dependency: the generations that were asked for.
        generation: what they are; empty if none were asked for.
        is_pending: whether somebody is committing rows that the value depends on.
        verified: the mark of when it was last compared with its rows, if there is one.
    """

    content: bytes | None
    dependency: Dependency | None = None
    generation: bytes = b""
    is_pending: bool = False
    verified: bytes | None = None


def mark_of(generation: bytes, check: bytes) -> bytes:
    """The mark that a value with this check was compared with its rows in a generation."""
    return hashlib.blake2b(generation + check, digest_size=16).digest()


class ValueStore:
    """The values of a schema.

    Each method raises `client.Unavailable` if Redis does not answer, and most raise
    `client.Refused` if it refuses.
    """

    def __init__(self, client: CacheClient, keys: Keyspace, invalidation: Invalidation) -> None:
        self._client = client
        self._keys = keys
        self._invalidation = invalidation
        # The generations of values that are compared with rows: known once one has been read.
        self._likely: dict[str, Dependency] = {}

    @property
    def is_known(self) -> bool:
        """Whether the database has been asked who it is."""
        return self._keys.is_known

    def learn(self, connection: sa.Connection) -> None:
        """Ask the database who it is."""
        self._keys.learn(connection)

    def peek(self, name: str, dependency: Dependency | None) -> Peek:
        """What is stored.

        Args:
            name: names the value.
            dependency: the generations that tell whether it is up to date, if any do.
        """
        if dependency is not None:
            return self._with_generations(name, dependency)
        likely = self._likely.get(name)
        if likely is not None and not self._invalidation.is_behind:
            with suppress(Refused):
                return self._with_generations(name, likely)
        return Peek(self._client.run([("GET", self._key(name))])[0])

    def peek_with(self, name: str, dependency: Dependency, peek: Peek) -> Peek:
        """What is stored, with the generations that may tell that it need not be compared again.

        Args:
            name: names the value.
            dependency: the generations.
            peek: what was seen of the value, which is returned if Redis refuses.
        """
        if peek.dependency == dependency:
            return peek
        if len(self._likely) >= _MOST_LIKELY:
            self._likely.clear()
        self._likely[name] = dependency
        with suppress(Refused):
            return self._with_generations(name, dependency)
        return peek._replace(dependency=dependency, is_pending=True)

    def mark_verified(self, name: str, mark: bytes, age: timedelta) -> None:
        """Note that a value was compared with its rows."""
        with suppress(Refused):
            self._client.run([("SET", self._key(f"{name}:verified"), mark, *_for(age))])

    def lease(self, name: str) -> tuple[bytes | None, bytes | None]:
        """Ask for the right to store a value.

        Returns:
            The lease, or None if somebody else has it; and the stored value.
        """
        token = secrets.token_hex(8).encode()
        leasing = ("SET", self._key(f"{name}:lease"), token, "PX", _LEASE_MS, "NX")
        leased, content = self._client.run([leasing, ("GET", self._key(name))])
        return token if leased is not None else None, content

    def release(self, name: str, lease: bytes) -> None:
        """Give a lease back."""
        self._client.run([("EVAL", _RELEASE, 1, self._key(f"{name}:lease"), lease)])

    def store(self, name: str, lease: bytes, content: bytes, ttl: timedelta) -> bool:
        """Store a value. False if a commit has taken the lease away meanwhile."""
        keys = (self._key(name), self._key(f"{name}:lease"))
        stored = self._client.run(
            [("EVAL", _STORE, 2, *keys, lease, content, int(1000 * ttl.total_seconds()))]
        )
        return bool(stored[0])

    def _with_generations(self, name: str, dependency: Dependency) -> Peek:
        """What is stored, and the generations, at one moment."""
        if self._invalidation.is_behind:
            return Peek(None, dependency, is_pending=True)
        scopes = dependency.scopes()
        generations = [self._key(f"g:{scope}") for scope in ("epoch", *scopes)]
        for _ in range(2):
            (content, verified), names, pending = self._client.run(
                [
                    ("MGET", self._key(name), self._key(f"{name}:verified")),
                    ("MGET", *generations),
                    ("ZRANGEBYSCORE", self._key("pending"), self._client.now(), "+inf"),
                ]
            )
            missing = [key for key, name in zip(generations, names, strict=True) if name is None]
            if not missing:
                committing = {member.partition(b"|")[2].decode() for member in pending}
                digest = hashlib.blake2b(b"".join(names), digest_size=16).digest()
                is_pending = not committing.isdisjoint(scopes)
                return Peek(content, dependency, digest, is_pending, verified)
            age = self._invalidation.generation_age
            self._client.run([("SET", key, new_generation(), *_for(age), "NX") for key in missing])
        return Peek(None, dependency, is_pending=True)  # Redis lets go of them at once

    def _key(self, name: str) -> bytes:
        return self._keys.key(self._client.server(), name)


def _for(age: timedelta) -> tuple[Any, ...]:
    return ("PX", int(1000 * age.total_seconds()))
