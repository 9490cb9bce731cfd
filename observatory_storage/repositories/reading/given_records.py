"""Log records that are given to PostgreSQL, for conditions on content that stands in frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session, aliased

from observatory_storage.errors import translated
from observatory_storage.models import LogRecord

__all__ = ["GIVEN_RECORDS", "GivenRecord", "decide"]

T = TypeVar("T")

# What is given to PostgreSQL at once.
_ROWS_AT_ONCE: Final = 200
_MOST_BYTES: Final = 4_000_000


class GivenRecord(NamedTuple):
    """The columns of a log record that content stands in, as text."""

    event_name: str | None
    body: str | None
    attributes: str
    body_json: str | None


_GIVEN: Final = (
    sa.func.unnest(*(sa.bindparam(name, type_=sa.ARRAY(sa.Text)) for name in GivenRecord._fields))
    .table_valued(
        *(sa.column(name, sa.Text) for name in GivenRecord._fields), with_ordinality="number"
    )
    .render_derived(name="given")
)
# OFFSET keeps PostgreSQL from parsing the JSON for each expression.
_ROW: Final = (
    sa.select(
        _GIVEN.c.number,
        _GIVEN.c.event_name,
        _GIVEN.c.body,
        sa.cast(_GIVEN.c.attributes, JSONB).label("attributes"),
        sa.cast(_GIVEN.c.body_json, JSONB).label("body_json"),
    )
    .offset(sa.literal_column("'0'"))
    .subquery("row")
)
GIVEN_RECORDS: Final[Any] = aliased(LogRecord, _ROW, adapt_on_names=True)
"""The given records, as conditions name them."""


def decide(
    connection: sa.Connection | Session,
    records: Iterable[tuple[T, GivenRecord]],
    *conditions: sa.ColumnElement[bool],
    rank: sa.ColumnElement[float] | None = None,
) -> Iterator[tuple[T, float]]:
    """The records that meet conditions on `GIVEN_RECORDS`, in their order, each with its rank.

    Args:
        records: anything, each with its columns.
        rank: what is computed of a record; None for 0.
    """
    computed = sa.literal(0.0) if rank is None else rank
    statement = sa.select(_ROW.c.number, computed).where(*conditions).order_by(_ROW.c.number)
    for batch in _batches(records):
        columns = zip(*(given for _, given in batch), strict=True)
        values = dict(zip(GivenRecord._fields, map(list, columns), strict=True))
        with translated():
            found = connection.execute(statement, values).all()
        yield from ((batch[number - 1][0], float(each)) for number, each in found)


def _batches(
    records: Iterable[tuple[T, GivenRecord]],
) -> Iterator[list[tuple[T, GivenRecord]]]:
    batch: list[tuple[T, GivenRecord]] = []
    size = 0
    for record, given in records:
        batch.append((record, given))
        size += sum(len(value or "") for value in given)
        if len(batch) >= _ROWS_AT_ONCE or size > _MOST_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
