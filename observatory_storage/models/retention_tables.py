"""Tables of retention: the traces that are pinned, and what was done with partitions.

They have no model, because no writer and no unit of work writes their rows.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, DateTime, Numeric, Table, Text, Uuid, func

from observatory_storage.models.base import NAME, Base, one_of

__all__ = ["EXPIRED_PARTITIONS", "PINNED_TRACES"]

_TIME: Final = DateTime(timezone=True)

PINNED_TRACES: Final = Table(
    "pinned_traces",
    Base.metadata,
    Column("trace_id", Uuid(), primary_key=True, doc="The `id` of the trace."),
    Column("reason", Text(), doc="Why it is kept."),
    Column("pinned_at", _TIME, nullable=False, server_default=func.now(), doc="When."),
)

# A partition that retention works on, or that it has left with spared rows only. It is known by its
# object identifier, because another table may get its name.
EXPIRED_PARTITIONS: Final = Table(
    "expired_partitions",
    Base.metadata,
    Column("partition_oid", BigInteger(), primary_key=True, autoincrement=False, doc="Its oid."),
    Column("partition", NAME, nullable=False, doc="Its name."),
    Column("table_name", NAME, nullable=False, doc="The table that it belongs to."),
    Column("lower_bound", _TIME, nullable=False, doc="The begin of its range."),
    Column("upper_bound", _TIME, nullable=False, doc="The end of its range."),
    Column(
        "state",
        NAME,
        nullable=False,
        doc='"filled": a new table, not attached yet; "leaving": being detached and dropped;'
        ' "kept": it has only rows that retention spares.',
    ),
    Column("archived_rows", BigInteger(), doc="How many of its rows were archived."),
    Column("archived_versions", Numeric(), doc="The sum of the xmin of these rows."),
    one_of("state", ("filled", "leaving", "kept")),
)
