"""Columns in the form that the driver sends fastest, which is the same on the wire.

psycopg makes the eight bytes of a `datetime` and the sixteen of a `UUID` in Python, value by value;
integers and bytes it sends as they are, from C. A whole column of times is made integers of here,
and a column of UUIDs, most of which repeat (the spans of a trace), bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

__all__ = ["wire_rows", "wire_type"]

_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)  # PostgreSQL's
_MICROSECOND: Final = timedelta(microseconds=1)


def wire_type(kind: str) -> str:
    """The type that a column of this type is sent as."""
    return _SENT_AS[kind][0] if kind in _SENT_AS else kind


def wire_rows(kinds: Sequence[str], columns: Sequence[Sequence[Any]]) -> Iterator[tuple[Any, ...]]:
    """The rows of these columns, each value as `wire_type` says of the column's kind."""
    return zip(
        *(
            _SENT_AS[kind][1](column) if kind in _SENT_AS else column
            for kind, column in zip(kinds, columns, strict=True)
        ),
        strict=True,
    )


def _microseconds(column: Sequence[datetime | None]) -> list[int | None]:
    return [None if value is None else (value - _EPOCH) // _MICROSECOND for value in column]


def _bytes(column: Sequence[UUID | None]) -> list[bytes | None]:
    # By identity, which rows of one trace share: UUID hashes in Python.
    known = {id(value): None if value is None else value.bytes for value in column}
    return [known[id(value)] for value in column]


_SENT_AS: Final[dict[str, tuple[str, Callable[[Any], Sequence[Any]]]]] = {
    "timestamp with time zone": ("bigint", _microseconds),
    "uuid": ("bytea", _bytes),
}
