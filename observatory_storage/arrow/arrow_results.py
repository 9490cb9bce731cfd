"""Results that become Arrow by `to_arrow`, and by the PyCapsule interface."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from observatory_storage.arrow.shapes import Shape

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ArrowData", "ResultList"]

T = TypeVar("T")


class ArrowData:
    """What pandas, polars, DuckDB and other libraries take as Arrow.

    They call ``__arrow_c_stream__``, which the Arrow PyCapsule interface defines.
    """

    __slots__ = ()

    def to_arrow(self) -> Any:
        """The rows, as something of pyarrow that has ``__arrow_c_stream__`` itself."""
        raise NotImplementedError

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.to_arrow().__arrow_c_stream__(requested_schema)


class ResultList(list[T]):
    """A list of rows or results, which `to_arrow` converts.

    pandas, polars and DuckDB take a list as one, so pass them the table.
    """

    __slots__ = ("_shape",)

    def __init__(self, rows: Iterable[T], shape: Shape) -> None:
        super().__init__(rows)
        self._shape = shape

    def to_arrow(self) -> pa.Table:
        """Return the list as a `pyarrow.Table`.

        The guide "Arrow" lists the types of columns. An empty list has the same columns.

        Raises:
            ConfigError: pyarrow is not installed (extra ``arrow``).
        """
        return self._shape.table(self)
