"""Reads results through the cache that depend on more than a few rows: statistics, names, metrics.

Whether such a result is up to date is told by generations, which commits end. A transaction that
has written anything, that has a snapshot of its own, or that runs on a replica does not use the
cache: its results are not those of others.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import cache
from typing import Any, Final, Generic, NamedTuple, TypeVar, get_args, get_type_hints

import sqlalchemy as sa
from msgspec.msgpack import Decoder
from sqlalchemy.orm import Session

from observatory_storage.cache import Dependency, ReadThrough, StoredValue, tag_of
from observatory_storage.commits import has_changed
from observatory_storage.models import Base
from observatory_storage.repositories.reading.cached_rows import (
    RowCodec,
    Written,
    codec_of,
    decoded,
    encode,
)
from observatory_storage.repositories.reading.reader import Reader

__all__ = [
    "CACHE",
    "Question",
    "cache_of",
    "cached_entities",
    "cached_result",
    "is_like_others",
    "list_of",
]

T = TypeVar("T")
M = TypeVar("M", bound=Base)

# The key in `Session.info` of what a unit of work reads through.
CACHE: Final = "observatory_storage.cache"
_IS_LIKE_OTHERS: Final = sa.text(
    "SELECT pg_current_xact_id_if_assigned() IS NULL AND NOT pg_is_in_recovery()"
    " AND current_setting('transaction_isolation') = 'read committed'"
)
_written: Final = Decoder(Written)
# The default `repr` names the place of an object in memory.
_ADDRESS: Final = re.compile(r" at 0x[0-9a-f]+")


def list_of(kind: type[T]) -> type[list[T]]:
    """The type of a list: within a class that has a method `list`, that name means the method."""
    return list[kind]  # type: ignore[valid-type]


def cache_of(session: Session, kind: str) -> ReadThrough | None:
    """What values of a kind are read through; None if they are not cached."""
    reads: ReadThrough | None = session.info.get(CACHE)
    return reads if reads is not None and reads.caches(kind) else None


class Question(NamedTuple):
    """A question whose answer is cached.

    Attributes:
        kind: the kind of the value.
        parts: what tells the question from others, by its ``repr``.
        dependency: what the answer depends on; None if it must not be cached.
    """

    kind: str
    parts: tuple[Any, ...]
    dependency: Dependency | None


def cached_result(reader: Reader, question: Question, result: Any, ask: Callable[[], T]) -> T:
    """The answer to a question, from the cache if it is up to date.

    Args:
        reader: the reader that answers it.
        question: the question.
        result: the type of the answer.
        ask: asks PostgreSQL.
    """
    kind, parts, dependency = question
    reads = None if dependency is None else cache_of(reader.session, kind)
    if reads is None:
        return ask()
    asked = repr(parts)
    if _ADDRESS.search(asked) or not is_like_others(reader):
        return ask()
    read = _Result(reader, _decoder(result), _tag(result), ask)
    return reads.read(kind, _name(kind, asked), read, reader.connection, dependency)


def cached_entities(
    reader: Reader, question: Question, model: type[M], ask: Callable[[], list[M]]
) -> list[M]:
    """The entities that a question finds, from the cache if they are up to date.

    Args:
        reader, question, ask: as `cached_result` takes them.
        model: the class of the entities.
    """
    reads = cache_of(reader.session, question.kind)
    asked = repr(question.parts)
    if reads is None or _ADDRESS.search(asked) or not is_like_others(reader):
        return ask()
    read = _Entities(reader, codec_of(model), ask)
    return reads.read(
        question.kind, _name(question.kind, asked), read, reader.connection, question.dependency
    )


class _Result(Generic[T]):
    """A `CachedRead` of a result."""

    def __init__(
        self, reader: Reader, decoder: Decoder[Any], tag: bytes, ask: Callable[[], T]
    ) -> None:
        self._reader = reader
        self._decoder = decoder
        self.tag = tag
        self.ask = ask

    def depends_on(self, stored: StoredValue) -> None:
        return None

    def verify(self, stored: StoredValue) -> None:
        """Generations tell by themselves whether it is up to date."""

    def open(self, stored: StoredValue) -> T:
        found: T = decoded(self._decoder, stored.body)
        return found

    def fill(self) -> tuple[T, StoredValue | None]:
        # A transaction may have begun with settings of its own, which this begins.
        self._reader.connection()
        if not is_like_others(self._reader):
            return self.ask(), None
        value = self.ask()
        body = encode(value)
        # What is read from the cache is the same in every respect, or it is not cached.
        if body is None or repr(self._decoder.decode(body)) != repr(value):
            return value, None
        return value, StoredValue(b"", body)


class _Entities(Generic[M]):
    """A `CachedRead` of entities."""

    def __init__(self, reader: Reader, codec: RowCodec, ask: Callable[[], list[M]]) -> None:
        self._reader = reader
        self._codec = codec
        self.ask = ask

    @property
    def tag(self) -> bytes:
        return tag_of((self._codec.names, self._codec.types))

    def depends_on(self, stored: StoredValue) -> None:
        return None

    def verify(self, stored: StoredValue) -> None:
        """Generations tell by themselves whether it is up to date."""

    def open(self, stored: StoredValue) -> list[M]:
        rows = self._codec.read(decoded(_written, stored.body))
        found: list[M] = self._codec.entities(rows, self._reader.session)
        return found

    def fill(self) -> tuple[list[M], StoredValue | None]:
        self._reader.connection()
        if not is_like_others(self._reader):
            return self.ask(), None
        entities = self.ask()
        body = encode(self._codec.write(entities))
        return entities, StoredValue(b"", body) if body else None


def _name(kind: str, asked: str) -> str:
    return f"r:{kind}:{hashlib.blake2b(asked.encode(), digest_size=16).hexdigest()}"


def is_like_others(reader: Reader) -> bool:
    """Whether the transaction sees what all others see. One that has not begun does."""
    session = reader.session
    if not session.in_transaction():
        return True
    if session.new or session.dirty or session.deleted:
        return False
    if reader.is_sharded and has_changed(session):
        return False  # the coordinator gives no id to a transaction that writes to shards
    return bool(reader.scalar(_IS_LIKE_OTHERS))


@cache
def _decoder(result: Any) -> Decoder[Any]:
    return Decoder(result)


@cache
def _tag(result: Any) -> bytes:
    return tag_of([_described(part) for part in (*get_args(result), result)])


def _described(part: Any) -> Any:
    """The fields of a class with their types."""
    if isinstance(part, type) and hasattr(part, "__annotations__"):
        return part.__name__, get_type_hints(part)
    return part
