"""Rows that COPY sends as CSV, and their conversion, which makes no Python object of a value.

PostgreSQL writes NULL as nothing and an empty text as ``""``. Texts of times depend on the
session's settings, so times are sent as microseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from observatory_storage.arrow.shapes import Shape, arrow_module

__all__ = ["copied_columns", "table_of_copied"]

_MICROSECONDS: Final[sa.ColumnElement[int]] = sa.literal_column("1000000")
# The parser is fastest with blocks that fit into the caches of a processor.
_BLOCK_BYTES: Final = 512 * 1024


def copied_columns(shape: Shape, entity: Any) -> list[sa.ColumnElement[Any]]:
    """The columns that a statement selects, so that its rows can be read as copied ones.

    Args:
        shape: of the rows.
        entity: the model of the shape, or an alias of it, that the statement selects.
    """
    columns: list[sa.ColumnElement[Any]] = []
    for name, kind in shape.fields:
        column = getattr(entity, name)
        sent = _microseconds(column) if kind == "time" else column
        # SQLAlchemy takes all for text, since the result of a COPY does not tell its types.
        columns.append(sa.type_coerce(sent, sa.Text).label(name))
    return columns


def table_of_copied(lines: Sequence[bytes], shape: Shape) -> Any:
    """The rows as a `pyarrow.Table`, which has one chunk or more.

    Args:
        lines: a line of CSV for each row, with its end of line. There is at least one.
        shape: of the rows.
    """
    pa = arrow_module()
    from pyarrow import csv

    schema = shape.schema()
    names = schema.names
    longest = max(map(len, lines))
    read = csv.read_csv(
        pa.BufferReader(b"".join(lines)),
        # A line has to fit into a block. With threads, parsing takes a third more processor time.
        read_options=csv.ReadOptions(
            column_names=names, block_size=max(_BLOCK_BYTES, longest + 1), use_threads=False
        ),
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(
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
