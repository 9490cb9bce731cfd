"""Keyset pagination: a page begins after the key of a row, so every page costs the same.

A list is a `Search`, which finds rows in the order of a `Keyset`. `read_page` and `read_all` divide
it into pages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import (
    TYPE_CHECKING,
    Any,
    Final,
    Generic,
    Literal,
    NamedTuple,
    Protocol,
    TypeVar,
    get_args,
    overload,
)

from sqlalchemy import BigInteger, ColumnElement, Select, bindparam, tuple_, type_coerce
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.elements import KeyedColumnElement

from observatory_storage.arrow import ArrowData, Shape
from observatory_storage.errors import StorageError, ValidationError
from observatory_storage.repositories.reading import cursors, validation
from observatory_storage.serialization import Result

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Keyset", "Page", "Search", "Seek", "SeekShape", "Total", "read_all", "read_page"]

# Whether the rows of a list are counted, or estimated by the planner.
Total = Literal["exact", "estimated"]
TOTALS: Final = get_args(Total)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
S = TypeVar("S", bound="Select[*tuple[Any, ...]]")


@dataclass(frozen=True, slots=True)
class Page(Result, ArrowData, Sequence[T], Generic[T]):
    """A page of a list, with the cursors of the next and the previous page.

    Attributes:
        rows: the rows in the list's order, also if the page was reached by ``before``.
        next: the cursor of the next page, for ``after=``; None on the last page.
        previous: the cursor of the previous page, for ``before=``; None on the first page.
        total: the number of rows of all pages, if it was requested by ``total=``; else None.
        total_kind: "exact" if the rows were counted, "estimated" if `total` is the planner's
            estimate.
        shape: the columns of the rows, for `to_arrow`.
    """

    rows: tuple[T, ...]
    next: str | None = None
    previous: str | None = None
    total: int | None = None
    total_kind: Total | None = None
    shape: Shape | None = field(default=None, repr=False, compare=False, kw_only=True)

    def to_arrow(self) -> pa.Table:
        """Return the rows as a `pyarrow.Table`, which pandas, polars and DuckDB take.

        The guide "Arrow" lists the types of columns. An empty page has the same columns.

        Raises:
            ConfigError: pyarrow is not installed (extra ``arrow``).
        """
        if self.shape is None:
            raise StorageError("only a page that a repository returned can become Arrow")
        return self.shape.table(self.rows)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...
    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)


class SeekShape(NamedTuple):
    """The shape of a page's statement, which does not depend on its parameter values.

    Attributes:
        descending: the order in which rows are met.
        from_key: whether the rows begin after a key.
    """

    descending: bool
    from_key: bool


@dataclass(frozen=True, slots=True)
class Keyset:
    """The order of a list: a unique combination of columns, all ascending or all descending.

    Args:
        list_name: distinguishes the cursors of this list from those of others.
        columns: the sort key. In a partitioned table the time column comes first.
        descending: newest first.
        missing: the first column's value for a row that has none.
    """

    list_name: str
    columns: tuple[InstrumentedAttribute[Any] | KeyedColumnElement[Any], ...]
    descending: bool = True
    missing: int | None = None

    def seek(self, statement: S, shape: SeekShape) -> S:
        """The statement's rows of one page; `Seek.parameters` has the values."""
        if shape.from_key:
            statement = statement.where(*self._beyond_key(descending=shape.descending))
        ordered = self.in_order(statement, descending=shape.descending)
        return ordered.limit(bindparam("row_limit", type_=BigInteger))

    def in_order(self, statement: S, *, descending: bool) -> S:
        """The statement's rows in this order."""
        return statement.order_by(*(c.desc() if descending else c.asc() for c in self.columns))

    def key_of(self, row: object) -> list[Any]:
        """The values of a row's sort key."""
        first, *others = (getattr(row, column.key) for column in self.columns)
        return [self.missing if first is None else first, *others]

    def cursor_of(self, row: object, query: Mapping[str, Any]) -> str:
        """The cursor of a row."""
        key = [cursors.to_plain(value) for value in self.key_of(row)]
        return cursors.encode_cursor(self.list_name, query, key)

    def key_at(self, field: str, cursor: str, query: Mapping[str, Any]) -> list[Any]:
        """The key that a cursor holds.

        Raises:
            ValidationError: the cursor is damaged, or belongs to another query.
        """
        values = cursors.decode_cursor(field, cursor, self.list_name, query)
        if len(values) != len(self.columns):
            raise cursors.damaged_cursor(field, cursor)
        try:
            return [cursors.key_value(v, c.type) for v, c in zip(values, self.columns, strict=True)]
        except cursors.NOT_A_KEY:
            raise cursors.damaged_cursor(field, cursor) from None

    def _beyond_key(self, *, descending: bool) -> list[ColumnElement[bool]]:
        bound = [type_coerce(bindparam(f"key_{c.key}"), c.type) for c in self.columns]
        row, key = tuple_(*self.columns), tuple_(*bound)
        # PostgreSQL does not prune partitions by a row comparison, only by one of the first column.
        if descending:
            return [row < key, self.columns[0] <= bound[0]]
        return [row > key, self.columns[0] >= bound[0]]


@dataclass(frozen=True, slots=True)
class Seek:
    """The rows that a page needs: a number of rows after a key, in one direction.

    Attributes:
        row_limit: the maximum number of rows: one more than the page has, to find out whether more
            follow.
        descending: the order in which rows are met; the reverse of the list's for ``before``.
        key: the key after which the rows begin; None to begin at either end of the list.
    """

    keyset: Keyset
    row_limit: int
    descending: bool
    key: Sequence[Any] | None = None

    @property
    def shape(self) -> SeekShape:
        return SeekShape(self.descending, self.key is not None)

    @property
    def parameters(self) -> dict[str, Any]:
        """The values of the bind parameters that `Keyset.seek` makes."""
        found: dict[str, Any] = {"row_limit": self.row_limit}
        if self.key is not None:
            names = (f"key_{column.key}" for column in self.keyset.columns)
            found.update(zip(names, self.key, strict=True))
        return found

    def of(self, statement: S) -> S:
        """The statement limited to these rows, to be run with `parameters`."""
        return self.keyset.seek(statement, self.shape)

    def following(self, rows: Sequence[object]) -> Seek:
        """The seek for the rows that follow the given ones, which are the first of this seek."""
        if not rows:
            return self
        key = self.keyset.key_of(rows[-1])
        return replace(self, key=key, row_limit=self.row_limit - len(rows))


class Search(Protocol[T_co]):
    """A list of rows in the order of a keyset.

    Attributes:
        query: the values that tell this query's cursors from those of other queries on the same
            list.
    """

    @property
    def keyset(self) -> Keyset: ...
    @property
    def query(self) -> Mapping[str, Any]: ...
    def rows(self, seek: Seek) -> Sequence[T_co]:
        """The rows of the seek."""

    def count(self, kind: Total) -> int:
        """The number of rows of the whole list."""


def read_page(
    search: Search[T],
    limit: int,
    after: str | None = None,
    before: str | None = None,
    total: Total | None = None,
    *,
    shape: Shape | None = None,
) -> Page[T]:
    """A page of a list, with the total where it is asked for.

    Args:
        search: the list.
        limit: the most rows in the page.
        after: the cursor ``next`` of the page before it.
        before: the cursor ``previous`` of the page after it.
        total: whether and how the rows of all pages are counted.
        shape: the columns of the rows; None if the page is not given to a user.

    Raises:
        ValidationError: a cursor is damaged or another query's, or both cursors are given.
    """
    validation.choice("total", total, TOTALS)
    if after is not None and before is not None:
        raise ValidationError("before", before, "must not be given together with after")
    keyset, query, backwards = search.keyset, search.query, before is not None
    field, cursor = ("before", before) if backwards else ("after", after)
    key = None if cursor is None else keyset.key_at(field, cursor, query)
    seek = Seek(keyset, limit + 1, keyset.descending != backwards, key)
    found = search.rows(seek)
    has_more, rows = len(found) == seek.row_limit, list(found[:limit])
    if backwards:
        rows.reverse()
    page: Page[T] = Page((), shape=shape)
    if rows:
        has_next, has_previous = (True, has_more) if backwards else (has_more, key is not None)
        page = Page(
            tuple(rows),
            next=keyset.cursor_of(rows[-1], query) if has_next else None,
            previous=keyset.cursor_of(rows[0], query) if has_previous else None,
            shape=shape,
        )
    if total is None:
        return page
    if cursor is None and page.next is None:
        return replace(page, total=len(page), total_kind="exact")  # the page is the whole list
    count = search.count(total)
    if total == "estimated":
        count = max(count, len(page) + (page.next is not None) + (page.previous is not None))
    return replace(page, total=count, total_kind=total)


def read_all(search: Search[T], batch_size: int) -> Iterator[T]:
    """Iterate over the rows of all pages, with one page at a time in memory."""
    page = read_page(search, batch_size)
    yield from page
    while page.next is not None:
        page = read_page(search, batch_size, page.next)
        yield from page
