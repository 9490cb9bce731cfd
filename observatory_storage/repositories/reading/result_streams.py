"""What iterates over large results, or converts them to Arrow a batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from observatory_storage.arrow import ArrowData, Shape, arrow_module, table_of_copied
from observatory_storage.repositories.reading import validation
from observatory_storage.repositories.reading.copy_reader import CopyReader
from observatory_storage.repositories.reading.framed_tables import with_whole_values
from observatory_storage.repositories.reading.pages import Search, Seek, read_all
from observatory_storage.repositories.reading.reader import Reader

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ResultStream", "stream_of"]

T = TypeVar("T")
Through = Callable[[Iterator[Any], Callable[[Any], int]], Iterator[Any]]

_ARROW_BATCH_SIZE: Final = 20_000
# A page of a stream has fewer rows if they are so large that they would take more memory.
_PAGE_BYTES: Final = 16 * 1024 * 1024
# The size of rows is known after the first page.
_FIRST_PAGE: Final = 200


class ResultStream(ArrowData, Iterator[T], Generic[T]):
    """An iterator over a large result, which `to_arrow` converts in bounded memory.

    pandas, polars and DuckDB take the stream itself, by the Arrow PyCapsule interface.

    Args:
        reader: of the repository.
        shape: the columns of the rows.
        rows: makes an iterator that reads so many rows at a time.
        batch_size: the number of rows that iterating reads at a time.
        copied: makes a search that reads its rows by COPY, if there is one.
        is_copied: asked when rows are converted: whether that search can read them.
    """

    def __init__(
        self,
        reader: Reader,
        shape: Shape,
        rows: Callable[[int], Iterator[T]],
        batch_size: int,
        copied: Callable[[Reader], Search[T]] | None = None,
        *,
        is_copied: Callable[[], bool] = lambda: True,
    ) -> None:
        self._reader = reader
        self._shape = shape
        self._make_rows = rows
        self._copied, self._is_copied = copied, is_copied
        self._rows = rows(batch_size)
        self._through: Through | None = None

    def __next__(self) -> T:
        return next(self._rows)

    def read_through(self, through: Through) -> None:
        """Pass all that is read through a function, which may count it; not for applications."""
        self._rows = through(self._rows, lambda _: 1)
        self._through = through

    def close(self) -> None:
        """Read no more rows, as `close` of a generator does."""
        close = getattr(self._rows, "close", None)
        if close is not None:
            close()

    def to_arrow(self, batch_size: int = _ARROW_BATCH_SIZE) -> pa.RecordBatchReader:
        """Return a `pyarrow.RecordBatchReader` of all rows, which reads while it is consumed.

        It begins with the first row, however many have been iterated over, and can be called again.
        Consume it within the unit of work. It holds about four batches in memory. If it is let go
        before its end, nothing is left open. The guide "Arrow" lists the types of columns. An empty
        result has the same columns.

        Args:
            batch_size: the most rows of a batch. Batches of large rows have fewer.

        Raises:
            ConfigError: pyarrow is not installed (extra ``arrow``).
            StorageError: the unit of work has ended. While it is consumed, the reader raises what
                iterating would raise.
            ValidationError: the batch size is not a positive integer.
        """
        size = validation.limit("batch_size", batch_size)
        pa = arrow_module()
        _ = self._reader.session  # raises if the unit of work has ended
        tables = self._tables(size)
        batches = (batch for table in tables for batch in table.to_batches(max_chunksize=size))
        through = self._through
        read = batches if through is None else through(batches, len)
        return pa.RecordBatchReader.from_batches(self._shape.schema(), read)

    def _tables(self, size: int) -> Iterator[Any]:
        if self._copied is None or not self._is_copied():
            yield from self._made_tables(size)
        else:
            yield from self._copied_tables(size, self._copied)

    def _made_tables(self, size: int) -> Iterator[Any]:
        """The tables of rows that were made."""
        at_once = min(size, validation.BATCH_SIZE)
        rows = self._make_rows(at_once)
        while batch := [*islice(rows, at_once)]:
            yield self._shape.table(batch)

    def _copied_tables(self, size: int, copied: Callable[[Reader], Search[T]]) -> Iterator[Any]:
        """The tables of pages that are copied, each by statements of its own.

        So no COPY is open between two batches, and other statements may run there.
        """
        reader = CopyReader(self._reader.session, self._shape)
        search = copied(reader)
        seek: Seek | None = Seek(search.keyset, min(size, _FIRST_PAGE), search.keyset.descending)
        # While PostgreSQL sends a page, a thread parses the page before it, without the GIL.
        with ThreadPoolExecutor(1, "observatory-arrow") as parser:
            parsed: Future[Any] | None = None
            while seek is not None:
                lines = cast(Sequence[bytes], search.rows(seek))
                if parsed is not None:
                    yield with_whole_values(reader.session, self._shape, parsed.result())
                parsed = parser.submit(table_of_copied, lines, self._shape) if lines else None
                seek = self._seek_after(lines, seek, size)
            if parsed is not None:
                yield with_whole_values(reader.session, self._shape, parsed.result())

    def _seek_after(self, lines: Sequence[bytes], seek: Seek, size: int) -> Seek | None:
        """Where the page after these lines begins, and how many rows it has."""
        if len(lines) < seek.row_limit:
            return None
        fitting = max(1, _PAGE_BYTES * len(lines) // sum(map(len, lines)))
        (last,) = self._shape.rows_of(table_of_copied(lines[-1:], self._shape))
        key = seek.keyset.key_of(SimpleNamespace(**last))
        return Seek(seek.keyset, min(size, fitting), seek.descending, key)


def stream_of(
    reader: Reader,
    shape: Shape,
    search: Callable[[Reader], Search[T]],
    batch_size: int,
    *,
    is_copied: bool | Callable[[], bool] = True,
) -> ResultStream[T]:
    """The rows of a list, of which one page at a time is in memory.

    Args:
        reader: of the repository.
        shape: the columns of the rows.
        search: makes the list.
        batch_size: the rows of a page.
        is_copied: whether Arrow's rows are copied, or says so when they are asked for. The list
            must then read all its rows by `Reader.entities`, and use only their number.
    """

    def rows(size: int) -> Iterator[T]:
        return read_all(search(reader), size)

    if callable(is_copied):
        return ResultStream(reader, shape, rows, batch_size, search, is_copied=is_copied)
    return ResultStream(reader, shape, rows, batch_size, search if is_copied else None)
