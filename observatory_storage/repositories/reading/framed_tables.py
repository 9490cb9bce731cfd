"""Puts the values of payload frames into tables of Arrow, in place of their previews."""

from __future__ import annotations

import logging
from typing import Any, Final

from sqlalchemy.orm import Session

from observatory_storage.arrow import Shape, arrow_module
from observatory_storage.errors import translated
from observatory_storage.payloads import FRAME_SETS, DamagedFrame, log_damage, values_of
from observatory_storage.tables import PAYLOAD_COLUMNS

__all__ = ["with_whole_values"]

_log = logging.getLogger(__name__)
_FRAME, _DIGESTS = PAYLOAD_COLUMNS
_OWNERS: Final = {owners.definition.name: owners for of in FRAME_SETS for owners in of.owners}


def with_whole_values(session: Session, shape: Shape, table: Any) -> Any:
    """The table with whole values, by one statement if any row has values in a frame.

    As with entities, rows of a damaged frame keep their previews, and the damage is logged.
    """
    owners = _OWNERS.get(shape.kind.__tablename__)
    if owners is None or not {*owners.moving, *PAYLOAD_COLUMNS}.issubset(table.column_names):
        return table
    if table[_FRAME].null_count == len(table):
        return table
    pa = arrow_module()
    import pyarrow.compute as pc

    is_framed = pc.is_valid(table[_FRAME])
    names = [*owners.columns, *owners.moving]
    rows = shape.rows_of(table.select(names).filter(is_framed))
    with translated():
        found = values_of(session, owners.definition, rows, owners.definition.json_columns)
    damaged = [values for values in found if isinstance(values, DamagedFrame)]
    log_damage(damaged)
    if deleted := found.count(None):
        _log.warning("%s rows were deleted while they were read: they have previews", deleted)
    for row, values in zip(rows, found, strict=True):
        if values is not None and not isinstance(values, DamagedFrame):
            for column in owners.moving:
                if row[column] is not None:
                    row[column] = owners.put_back_text(
                        column, row[column].encode(), values
                    ).decode()
            row[_FRAME] = None
    for name in (*owners.moving, _FRAME):
        read = table[name]
        whole = pa.array([row[name] for row in rows], read.type)
        # In one piece: of a column in chunks, each chunk would take the first values.
        pieces = (pa.concat_arrays(each.chunks) for each in (read, is_framed))
        table = _with(table, name, pc.replace_with_mask(*pieces, whole))
    digests = pc.if_else(pc.is_valid(table[_FRAME]), table[_DIGESTS], None)
    return _with(table, _DIGESTS, digests)


def _with(table: Any, name: str, column: Any) -> Any:
    """The table with another column of this name."""
    return table.set_column(table.column_names.index(name), name, column)
