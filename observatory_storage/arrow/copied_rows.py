"""Rows that COPY sends as CSV, and their conversion, which makes no Python object of a value.

PostgreSQL writes NULL as nothing and an empty text as ``""``. Texts of times depend on the
session's settings, so times are sent as microseconds since 1970.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from observatory_storage.arrow.shapes import Kind, Shape, arrow_module

__all__ = ["CopiedRow", "copied_columns", "table_of_copied"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECONDS: Final[sa.ColumnElement[int]] = sa.literal_column("1000000")
# The parser is fastest with blocks that fit into the caches of a processor.
_BLOCK_BYTES: Final = 512 * 1024


class CopiedRow:
    """A row as a line of CSV. Its columns can be read as attributes, which takes a while.

    Attributes:
        line: the text, with its end of line.
    """

    __slots__ = ("_shape", "line")

    def __init__(self, line: Any, shape: Shape) -> None:
        self.line = line
        self._shape = shape

    def __getattr__(self, name: str) -> Any:
        fields = self._shape.fields
        (values,) = csv.reader([bytes(self.line).decode()])
        for field, value in zip(fields, values, strict=True):
            if field.name == name:
                # The keys of rows, which are what is asked for, are never an empty text.
                return None if value == "" else _READ.get(field.kind, str)(value)
        raise AttributeError(name)


def copied_columns(shape: Shape, entity: Any) -> list[sa.ColumnElement[Any]]:
    """The columns that a statement selects, so that its rows can be read as copied ones.

    Args:
        shape: of the rows.
        entity: the model of the shape, or an alias of it, that the statement selects.
    """
    columns = []
    for name, kind in shape.fields:
        column = getattr(entity, name)
        sent = _microseconds(column) if kind == "time" else column
        # SQLAlchemy takes all for text, since the result of a COPY does not tell its types.
        columns.append(sa.type_coerce(sent, sa.Text).label(name))
    return columns


def table_of_copied(rows: Sequence[CopiedRow], shape: Shape) -> Any:
    """The rows as a `pyarrow.Table`, which has one chunk or more."""
    pa = arrow_module()
    if not rows:
        return shape.schema().empty_table()
    from pyarrow import csv as arrow_csv

    schema = shape.schema()
    names = schema.names
    longest = max(len(row.line) for row in rows)
    read = arrow_csv.read_csv(
        pa.BufferReader(b"".join([row.line for row in rows])),
        # A line has to fit into a block.
        read_options=arrow_csv.ReadOptions(
            column_names=names, block_size=max(_BLOCK_BYTES, longest + 1)
        ),
        parse_options=arrow_csv.ParseOptions(newlines_in_values=True),
        convert_options=arrow_csv.ConvertOptions(
            column_types={
                field.name: pa.int64() if kind == "time" else field.type
                for field, (_, kind) in zip(schema, shape.fields, strict=True)
            },
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["t"],
            false_values=["f"],
        ),
    )
    return read.cast(schema)


def _microseconds(time: sa.ColumnElement[datetime]) -> sa.ColumnElement[int]:
    return sa.cast(sa.extract("epoch", time) * _MICROSECONDS, sa.BigInteger)


_READ: Final[dict[Kind, Callable[[str], Any]]] = {
    "uuid": UUID,
    "time": lambda text: _EPOCH + timedelta(microseconds=int(text)),
    "flag": lambda text: text == "t",
    "int16": int,
    "int32": int,
    "int64": int,
    "float": float,
    "decimal": Decimal,
}
