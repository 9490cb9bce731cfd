"""Pages by keyset: where a page ends is a row's key, so no page costs more than the first.

A cursor is opaque: the key of the row where the page ended, with a fingerprint of the query that
it belongs to and a checksum, in base64url. The checksum finds accidents and attempts; it is no
secret, and needs not be, since a cursor cannot say more than the query's own filters can.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Final, Generic, TypeVar, overload
from uuid import UUID

from sqlalchemy import ColumnElement, Select, SmallInteger, literal, tuple_
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.elements import KeyedColumnElement
from sqlalchemy.types import TypeEngine

from observatory_storage import jsonb
from observatory_storage.errors import ValidationError
from observatory_storage.repositories.totals import Total

__all__ = [
    "NOT_A_KEY",
    "Keyset",
    "Page",
    "damaged",
    "decode_cursor",
    "encode_cursor",
    "from_plain",
    "key_value",
    "to_plain",
]

T = TypeVar("T")

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

    def page(
        self,
        statement: Select[T],
        fetch: Callable[[Select[T]], Sequence[T]],
        *,
        query: Mapping[str, Any],
        limit: int,
        after: str | None = None,
        before: str | None = None,
    ) -> Page[T]:
        """The page of the statement's rows after or before a cursor; the first without one.

        Args:
            fetch: runs the statement.
            query: what tells this query's cursors from those of others on the same list.

        Raises:
            ValidationError: the cursor is damaged or another query's, or both are given.
        """
        if after is not None and before is not None:
            raise ValidationError("before", before, "must not be given together with after")
        backwards = before is not None
        cursor, field = (before, "before") if backwards else (after, "after")
        descending = self.descending != backwards
        if cursor is not None:
            values = self._key_of(field, cursor, query)
            statement = statement.where(*self._beyond(values, descending=descending))
        ordered = [c.desc() if descending else c.asc() for c in self.columns]
        # One row more than asked for says whether there is another page.
        found = fetch(statement.order_by(*ordered).limit(limit + 1))
        rows = list(found[:limit])
        more = len(found) > limit
        if backwards:
            rows.reverse()
        if not rows:
            return Page(())
        has_next = backwards or more
        has_previous = more if backwards else cursor is not None
        return Page(
            tuple(rows),
            next=self._cursor(rows[-1], query) if has_next else None,
            previous=self._cursor(rows[0], query) if has_previous else None,
        )

    def _beyond(self, values: Sequence[Any], *, descending: bool) -> list[ColumnElement[bool]]:
        key = tuple_(*self.columns)
        place = tuple_(*(literal(v, c.type) for v, c in zip(values, self.columns, strict=True)))
        first, edge = self.columns[0], literal(values[0], self.columns[0].type)
        # A comparison of rows prunes no partition; the one on its first column does.
        if descending:
            return [key < place, first <= edge]
        return [key > place, first >= edge]

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
