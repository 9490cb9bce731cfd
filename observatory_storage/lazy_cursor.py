"""A cursor that describes its columns only to those who look.

SQLAlchemy asks each result for the description of its columns, but reads it once for each
statement, and remembers it. psycopg makes an object for each column whenever it is asked, which
takes longer than reading a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, overload

import psycopg

__all__ = ["LazyCursor"]


class _Description(Sequence[psycopg.Column]):
    """The columns of a result, made at the first look.

    Args:
        cursor: the cursor, which keeps the result until it executes again.
        count: the number of columns.
    """

    def __init__(self, cursor: psycopg.Cursor[Any], count: int) -> None:
        self._cursor, self._count = cursor, count

    @cached_property
    def _columns(self) -> list[psycopg.Column]:
        return [psycopg.Column(self._cursor, index) for index in range(self._count)]

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> psycopg.Column: ...
    @overload
    def __getitem__(self, index: slice) -> list[psycopg.Column]: ...
    def __getitem__(self, index: int | slice) -> psycopg.Column | list[psycopg.Column]:
        return self._columns[index]


class LazyCursor(psycopg.Cursor[Any]):
    """psycopg's cursor with a lazy `description`."""

    @property
    def description(self) -> Any:
        """As PEP 249 says: the columns of the result; None if there is none."""
        result = self.pgresult
        if result is None or not result.nfields:
            return super().description
        return _Description(self, result.nfields)
