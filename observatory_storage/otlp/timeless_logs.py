"""Log records that are sent without any time, which have that of ingest.

The time is part of the key of a record. So a record that is sent again gets the time that it was
stored with before, and is not stored twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import sqlalchemy as sa

from observatory_storage.errors import translated
from observatory_storage.otlp.any_values import ABSENT
from observatory_storage.storing import Source
from observatory_storage.tables import LOGS

__all__ = ["is_timeless", "use_stored_times"]

_LOGS: Final = LOGS.table.c
_STORED: Final = sa.select(_LOGS.id, sa.func.min(_LOGS.timestamp)).group_by(_LOGS.id)


def is_timeless(row: Mapping[str, Any]) -> bool:
    """Whether the record of a row was sent without any time."""
    return row["observed_timestamp"] is None and (row["otlp"] or {}).get("time") == ABSENT


def use_stored_times(source: Source, rows: Iterable[dict[str, Any]]) -> None:
    """Give records without any time those of the stored records that have their ids.

    Raises:
        StorageError: the database could not be read.
    """
    timeless = {row["id"]: row for row in rows if is_timeless(row)}
    if not timeless:
        return
    ids = sa.literal(list(timeless), sa.ARRAY(_LOGS.id.type))
    statement = _STORED.where(_LOGS.id == sa.func.any(ids))
    with translated(), source.engine.connect() as connection:
        for record_id, timestamp in connection.execute(statement):
            timeless[record_id]["timestamp"] = timestamp
