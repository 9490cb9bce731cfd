"""What stays of an expired partition of log frames: what records refer to that are still there.

Log records go before their frames. Late writers may bring some back meanwhile, and a partition that
begins within an hour has records whose frames stand before it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa

from observatory_storage.errors import translated
from observatory_storage.lifecycle.stored_partitions import StoredPartition
from observatory_storage.models import LogRecord
from observatory_storage.payloads import hour_of
from observatory_storage.schema_state import quoted_name
from observatory_storage.storing.transaction import Source

__all__ = ["has_records", "insert_referred", "starts_of_referred"]

_HOUR: Final = timedelta(hours=1)
_IS_REFERRED: Final = "id = ANY(CAST(:ids AS bigint[])) OR packed_ids && CAST(:ids AS bigint[])"


def has_records(source: Source, partition: StoredPartition) -> bool:
    """Whether there are log records in the hours of a partition of frames."""
    record = sa.exists().where(*_within(partition)).select_from(LogRecord)
    with translated(), source.engine.connect() as connection:
        return bool(connection.scalar(sa.select(record)))


def starts_of_referred(
    connection: sa.Connection, source: Source, partition: StoredPartition
) -> list[datetime]:
    """The hours of the frames in a detached partition that records refer to."""
    name = f"{quoted_name(source.schema)}.{quoted_name(partition.name)}"
    statement = sa.text(f"SELECT DISTINCT start_time FROM {name} WHERE {_IS_REFERRED}")  # noqa: S608 - quoted
    return list(connection.scalars(statement, _referred(connection, partition)))


def insert_referred(
    connection: sa.Connection, source: Source, partition: StoredPartition, columns: str
) -> None:
    """Insert the frames of a detached partition again that records refer to.

    Args:
        columns: the quoted names of all columns.
    """
    schema = quoted_name(source.schema)
    statement = (
        f"INSERT INTO {schema}.{quoted_name(partition.table)} ({columns})"  # noqa: S608 - quoted
        f" SELECT {columns} FROM {schema}.{quoted_name(partition.name)} WHERE {_IS_REFERRED}"
        " ON CONFLICT DO NOTHING"
    )
    connection.execute(sa.text(statement), _referred(connection, partition))


def _referred(connection: sa.Connection, partition: StoredPartition) -> dict[str, Any]:
    frames = sa.select(LogRecord.payload_frame).distinct()
    is_framed = LogRecord.payload_frame.is_not(None)
    return {"ids": list(connection.scalars(frames.where(is_framed, *_within(partition))))}


def _within(partition: StoredPartition) -> tuple[sa.ColumnElement[bool], ...]:
    end = hour_of(partition.upper)
    end = end if end == partition.upper else end + _HOUR
    return LogRecord.timestamp >= partition.lower, LogRecord.timestamp < end
