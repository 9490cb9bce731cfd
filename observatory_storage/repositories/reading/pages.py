"""Pages by keyset: where a page ends is a row's key, so no page costs more than the first.

A cursor is opaque: the key of the row where the page ended, with a fingerprint of the query that
it belongs to and a checksum, in base64url. The checksum finds accidents and attempts; it is no
secret, and needs not be, since a cursor cannot say more than the query's own filters can.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Final, Generic, NamedTuple, TypeVar, overload
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    SmallInteger,
    bindparam,
    tuple_,
    type_coerce,
)
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.elements import KeyedColumnElement
from sqlalchemy.types import TypeEngine

from observatory_storage import jsonb
from observatory_storage.errors import ValidationError
from observatory_storage.repositories.reading.counting import Total

__all__ = [
    "NOT_A_KEY",
    "Keyset",
    "Page",
    "Turn",
    "Way",
    "damaged",
    "decode_cursor",
    "encode_cursor",
    "from_plain",
    "key_value",
    "to_plain",
]

T = TypeVar("T")
S = TypeVar("S", bound="Select[*tuple[Any, ...]]")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_CHECKSUM_BYTES: Final = 6
_LONGEST_CURSOR: Final = 16_384

# What a value that is no part of a key raises.
NOT_A_KEY: Final = (ValueError, TypeError, OverflowError)


@dataclass(frozen=True, slots=True)
class Page(Sequence[T], Generic[T]):
    """Some rows of a longer list, and how to go on from there.

    Attributes:
        rows: the rows, in the list's order whichever way the page was reached.
        next: the cursor of the page after this one (``after=``); None at the end.
        previous: the cursor of the page before this one (``before=``); None at the beginning.
        total: the number of rows on all pages together, where it was asked for (``total=``).
        total_kind: how that was found: "exact" if counted, "estimated" if the planner expects it.
    """

    rows: tuple[T, ...]
    next: str | None = None
    previous: str | None = None
    total: int | None = None
    total_kind: Total | None = None

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...
    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, slots=True)
class Keyset:
    """The order of a list: columns that together are unique, all ascending or all descending.

    Args:
        list_name: tells the cursors of this list from those of others.
        columns: the sort key, the time column first where the table is partitioned.
        descending: newest first.
    """

    list_name: str
    columns: tuple[InstrumentedAttribute[Any] | KeyedColumnElement[Any], ...]
    descending: bool = True

    def turn(
        self,
        *,
        query: Mapping[str, Any],
        limit: int,
        after: str | None = None,
        before: str | None = None,
    ) -> Turn:
        """To the page after or before a cursor; to the first one without.

        Args:
            query: what tells this query's cursors from those of others on the same list.

        Raises:
            ValidationError: the cursor is damaged or another query's, or both are given.
        """
        if after is not None and before is not None:
            raise ValidationError("before", before, "must not be given together with after")
        backwards = before is not None
        cursor, field = (before, "before") if backwards else (after, "after")
        key = None if cursor is None else self._key_of(field, cursor, query)
        # One row more than asked for says whether there is another page.
        return Turn(self, limit + 1, self.descending != backwards, key)

    def page(self, found: Sequence[T], turn: Turn, query: Mapping[str, Any]) -> Page[T]:
        """The page of the rows that were found for the turn."""
        backwards = turn.descending != self.descending
        more = len(found) == turn.most
        rows = list(found[: turn.most - 1])
        if backwards:
            rows.reverse()
        if not rows:
            return Page(())
        has_next = backwards or more
        has_previous = more if backwards else turn.key is not None
        return Page(
            tuple(rows),
            next=self._cursor(rows[-1], query) if has_next else None,
            previous=self._cursor(rows[0], query) if has_previous else None,
        )

    def along(self, statement: S, way: Way) -> S:
        """As `Turn.of`, with bind parameters for what `Turn.parameters` has."""
        if way.beyond:
            key: list[Any] = [bindparam(f"after_{column.key}") for column in self.columns]
            statement = statement.where(*self.beyond(key, descending=way.descending))
        ordered = self.in_order(statement, descending=way.descending)
        return ordered.limit(bindparam("most", type_=BigInteger))

    def in_order(self, statement: S, *, descending: bool) -> S:
        """The statement's rows in this order."""
        return statement.order_by(*(c.desc() if descending else c.asc() for c in self.columns))

    def beyond(self, values: Sequence[Any], *, descending: bool) -> list[ColumnElement[bool]]:
        """The condition on rows that come after a key, of values or bind parameters."""
        places = [type_coerce(v, c.type) for v, c in zip(values, self.columns, strict=True)]
        key, place = tuple_(*self.columns), tuple_(*places)
        # A comparison of rows prunes no partition; the one on its first column does.
        if descending:
            return [key < place, self.columns[0] <= places[0]]
        return [key > place, self.columns[0] >= places[0]]

    def _cursor(self, row: object, query: Mapping[str, Any]) -> str:
        values = [getattr(row, column.key) for column in self.columns]
        return encode_cursor(self.list_name, query, [to_plain(value) for value in values])

    def _key_of(self, field: str, cursor: str, query: Mapping[str, Any]) -> list[Any]:
        values = decode_cursor(field, cursor, self.list_name, query)
        if len(values) != len(self.columns):
            raise damaged(field, cursor)
        try:
            return [
                key_value(value, column.type)
                for value, column in zip(values, self.columns, strict=True)
            ]
        except NOT_A_KEY:
            raise damaged(field, cursor) from None


class Way(NamedTuple):
    """Which way a page is come to; from where is a parameter, if it is `beyond` a key."""

    descending: bool
    beyond: bool


@dataclass(frozen=True, slots=True)
class Turn:
    """How a page is come to.

    Attributes:
        most: so many rows are found at most.
        descending: the order in which its rows are met.
        key: of the row beyond which they begin; None at the beginning or the end of the list.
    """

    keyset: Keyset
    most: int
    descending: bool
    key: Sequence[Any] | None

    @property
    def way(self) -> Way:
        return Way(self.descending, self.key is not None)

    @property
    def parameters(self) -> dict[str, Any]:
        """The values for the bind parameters of `Keyset.along`."""
        found: dict[str, Any] = {"most": self.most}
        if self.key is not None:
            names = (f"after_{column.key}" for column in self.keyset.columns)
            found.update(zip(names, self.key, strict=True))
        return found

    def of(self, statement: S) -> S:
        """Those rows of the statement."""
        if self.key is not None:
            beyond = self.keyset.beyond(self.key, descending=self.descending)
            statement = statement.where(*beyond)
        return self.keyset.in_order(statement, descending=self.descending).limit(self.most)


def encode_cursor(list_name: str, query: Mapping[str, Any], values: Sequence[Any]) -> str:
    """The cursor that holds plain JSON values for a query."""
    content = json.dumps([_fingerprint(list_name, query), *values], separators=(",", ":")).encode()
    return _base64(_checksum(content) + content)


def decode_cursor(
    field: str, cursor: object, list_name: str, query: Mapping[str, Any]
) -> list[Any]:
    """The values that a cursor holds.

    Raises:
        ValidationError: it is not a cursor, was changed, or belongs to another query.
    """
    if not isinstance(cursor, str):
        raise ValidationError(field, cursor, "must be the cursor of a page")
    if len(cursor) > _LONGEST_CURSOR:
        raise damaged(field, cursor)
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except (binascii.Error, ValueError):
        raise damaged(field, cursor) from None
    checksum, content = raw[:_CHECKSUM_BYTES], raw[_CHECKSUM_BYTES:]
    # Base64 has several spellings of the same bytes: only ours is a cursor.
    if checksum != _checksum(content) or _base64(raw) != cursor:
        raise damaged(field, cursor)
    values: list[Any]
    try:
        fingerprint, *values = json.loads(content)
    except (ValueError, TypeError, RecursionError):
        raise damaged(field, cursor) from None
    if fingerprint != _fingerprint(list_name, query):
        raise ValidationError(field, cursor, "is the cursor of another query")
    return values


def to_plain(value: Any) -> Any:
    """A key's value as plain JSON, exactly."""
    if isinstance(value, datetime):
        return (value - _EPOCH) // _MICROSECOND
    return value.hex if isinstance(value, UUID) else value


def from_plain(value: Any, kind: type) -> Any:
    """The inverse of `to_plain`, for a value of the kind."""
    if kind is datetime:
        return _EPOCH + timedelta(microseconds=value)
    if kind is UUID and isinstance(value, str):
        return UUID(hex=value)
    if type(value) is not kind:
        raise TypeError(kind)
    return value


def key_value(plain: Any, kind: TypeEngine[Any]) -> Any:
    """A value for a column, of its plain form: a forged cursor may have any.

    Raises:
        ValueError, TypeError, OverflowError: the column cannot hold it; see `NOT_A_KEY`.
    """
    value = from_plain(plain, kind.python_type)
    if isinstance(value, int):
        bits = 15 if isinstance(kind, SmallInteger) else 63
        if not -(2**bits) <= value < 2**bits:
            raise OverflowError(value)
    if isinstance(value, str) and jsonb.clean_text(value) != value:
        raise ValueError(value)
    return value


def _fingerprint(list_name: str, query: Mapping[str, Any]) -> str:
    asked = jsonb.canonical([list_name, dict(query)])
    return blake2b(asked.encode(), digest_size=8).hexdigest()


def _checksum(content: bytes) -> bytes:
    return blake2b(content, digest_size=_CHECKSUM_BYTES, person=b"obs-cursor").digest()


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def damaged(field: str, cursor: object) -> ValidationError:
    """The error about a cursor that is none."""
    return ValidationError(field, cursor, "is not a cursor that a page gave")
