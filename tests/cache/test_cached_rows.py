"""Rows in MessagePack are the same rows when they are read again."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import hypothesis
import pytest
from hypothesis import strategies
from msgspec import Raw
from sqlalchemy.orm import Session

from observatory_storage import TraceSpan
from observatory_storage.cache import DamagedValue
from observatory_storage.repositories.reading.cached_rows import Written, codec_of
from observatory_storage.repositories.reading.entities import EntityMaker

CODEC = codec_of(TraceSpan)
# What PostgreSQL can hold.
TEXT = strategies.text(strategies.characters(exclude_characters="\0", exclude_categories=["Cs"]))
JSON = strategies.recursive(
    strategies.none()
    | strategies.booleans()
    | strategies.integers(-(2**63), 2**64 - 1)
    | strategies.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: (
        strategies.lists(inner, max_size=3) | strategies.dictionaries(TEXT, inner, max_size=3)
    ),
    max_leaves=8,
)
TIMES = strategies.datetimes().map(lambda time: time.replace(tzinfo=UTC, fold=0))
VALUES: dict[Any, strategies.SearchStrategy[Any]] = {
    bool: strategies.booleans(),
    datetime: TIMES,
    Decimal: strategies.decimals(allow_nan=False, allow_infinity=False)
    | strategies.sampled_from([Decimal(1), Decimal("1.0"), Decimal("-0"), Decimal("NaN")]),
    float: strategies.floats(),
    int: strategies.integers(-(2**63), 2**63 - 1),
    str: TEXT,
    UUID: strategies.uuids(),
}


def _column(place: int) -> strategies.SearchStrategy[Any]:
    attribute = list(CODEC.mapper.column_attrs)[place]
    column = attribute.columns[0]
    values = JSON if place in CODEC.json else VALUES[column.type.python_type]
    return values | strategies.none() if column.nullable else values


# Few different values, so that columns have one value in all rows at times.
ROWS = strategies.lists(
    strategies.tuples(*map(_column, range(len(CODEC.names)))), min_size=1, max_size=3
) | strategies.tuples(*map(_column, range(len(CODEC.names)))).map(lambda row: [row] * 3)


def shown(span: TraceSpan) -> str:
    return repr(dict(span))


@hypothesis.settings(
    max_examples=50, derandomize=True, database=None, phases=[hypothesis.Phase.generate]
)
@hypothesis.given(ROWS)
def test_rows_are_the_same_when_they_are_read_again(rows: list[tuple[Any, ...]]) -> None:
    session = Session()
    entities = list(EntityMaker(CODEC.mapper, CODEC.names, session)(rows))
    written = CODEC.write(entities)
    assert written is not None
    read = CODEC.entities(CODEC.read(written), session)
    assert list(map(shown, read)) == list(map(shown, entities))
    assert [list(dict(span)) for span in read] == [list(dict(span)) for span in entities]


def test_no_rows_are_no_rows() -> None:
    written = CODEC.write([])
    assert written is not None
    assert CODEC.entities(CODEC.read(written), Session()) == []


def test_rows_of_other_columns_are_refused() -> None:
    written = CODEC.write([])
    assert written is not None
    with pytest.raises(DamagedValue):
        CODEC.read(Written((99,), written.common, written.rows))
    with pytest.raises(DamagedValue):
        CODEC.read(Written((), written.common, Raw(b"no MessagePack")))
