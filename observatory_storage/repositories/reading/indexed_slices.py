"""Reads a range in pieces, so that the indexes of slices of open partitions are used.

Maintenance indexes what has been in an open partition for some minutes. Such an index has the rows
of one slice of time, and the planner takes it for a statement whose bounds lie within that slice,
as constants or as values of bind parameters. So each slice is a piece with bounds of its own, and
what lies before, between and after them are others. The pieces cover the whole range, whatever is
known of slices: an index that is missing costs time, and changes no answer.

Where the slices are is asked from time to time, and remembered for each engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import InstrumentedAttribute

from observatory_storage.models import Base
from observatory_storage.repositories.reading.catalog_facts import CatalogFacts
from observatory_storage.repositories.reading.filter_fields import within
from observatory_storage.repositories.reading.reader import Reader
from observatory_storage.slice_catalog import disjoint, slice_indexes

__all__ = ["Piece", "forget_slices", "in_pieces", "pieces_of"]

# A start and an end, each of which may be a bind parameter or None.
Piece = tuple[Any, Any]


_Slices = Sequence[tuple[datetime, datetime]]


def _asked_slices(connection: sa.Connection, schema: str, table_name: str) -> _Slices:
    indexes = slice_indexes(connection, schema, table_name)
    return disjoint((one.lower, one.upper) for one in indexes if one.is_valid)


_slices: Final = CatalogFacts(_asked_slices)


def forget_slices(engine: sa.Engine) -> None:
    """Ask the catalog anew before the next search."""
    _slices.forget(engine)


def pieces_of(
    reader: Reader, model: type[Base], start: datetime | None, end: datetime | None
) -> Sequence[Piece]:
    """The pieces of [start, end): one, unless slices divide the range."""
    return _pieces(_slices.of(reader, model), start, end)


def in_pieces(
    statement: sa.Select[*tuple[Any, ...]],
    time: InstrumentedAttribute[datetime],
    pieces: Sequence[Piece],
) -> sa.Select[*tuple[Any, ...]] | sa.CompoundSelect[*tuple[Any, ...]]:
    """The statement's rows whose time lies in one of the pieces, each once."""
    found = [statement.where(*within(time, *one)) for one in pieces]
    return found[0] if len(found) == 1 else sa.union_all(*found)


def _pieces(slices: _Slices, start: datetime | None, end: datetime | None) -> list[Piece]:
    """The parts of [start, end) that lie within a slice, and those between, in order of time."""
    pieces: list[Piece] = []
    edge = start
    for lower, upper in slices:
        begin = lower if edge is None else max(lower, edge)
        stop = upper if end is None else min(upper, end)
        if begin < stop:
            if edge is None or edge < begin:
                pieces.append((edge, begin))
            pieces.append((begin, stop))
            edge = stop
    if not pieces or edge is None or end is None or edge < end:
        pieces.append((edge, end))
    return pieces
