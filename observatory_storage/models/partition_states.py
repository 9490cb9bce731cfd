"""What maintenance does with partitions: which are closed, and which it is splitting."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.orm import Mapped, mapped_column

from observatory_storage.models.base import JSON, NAME, Base

__all__ = ["PartitionSplit", "PartitionState"]


class PartitionState(Base):
    """A partition that is closed: its time is over, and it is indexed, analysed and frozen.

    Maintenance writes these rows. Rows that come later still go into a closed partition.
    """

    __tablename__ = "partition_states"
    _shown = "partition_name lower_bound upper_bound closed_at row_count"

    partition_name: Mapped[str] = mapped_column(
        NAME, primary_key=True, doc="The partition, such as `logs_p20260131`."
    )
    table_name: Mapped[str] = mapped_column(NAME, doc="The partitioned table, such as `logs`.")
    relation_oid: Mapped[int] = mapped_column(
        doc="The OID of the partition. One that is dropped and made again has another."
    )
    lower_bound: Mapped[datetime | None] = mapped_column(
        doc="The first time of its range; None without a bound."
    )
    upper_bound: Mapped[datetime | None] = mapped_column(
        doc="The end of its range; None without a bound."
    )
    closed_at: Mapped[datetime] = mapped_column(doc="When it was closed.")
    frozen_at: Mapped[datetime] = mapped_column(
        doc="When it was last analysed and frozen: when it was closed, or after many late rows."
    )
    row_count: Mapped[int] = mapped_column(
        doc="About how many rows it had when it was last analysed and frozen."
    )
    index_definitions: Mapped[str] = mapped_column(
        NAME, doc="A digest of the definitions of the indexes that closed partitions have."
    )
    payload_rule: Mapped[str | None] = mapped_column(
        NAME,
        doc="Where maintenance has moved the large values of its spans or events, or is moving"
        " them: `inline`, or `compressed` with the threshold. None if it has not, or after late"
        " rows.",
    )
    payload_after: Mapped[uuid.UUID | None] = mapped_column(
        doc="The trace after which maintenance goes on moving them; None if it is done."
    )
    payloads_moved_at: Mapped[datetime | None] = mapped_column(
        doc="When maintenance last moved values of its rows."
    )


class PartitionSplit(Base):
    """A partition whose rows are being copied into finer ones, which will take its place.

    Maintenance writes these rows. The new tables are not attached before all rows are in them.
    """

    __tablename__ = "partition_splits"
    _shown = "partition_name next_block block_count is_replaced"

    partition_name: Mapped[str] = mapped_column(
        NAME, primary_key=True, doc="The partition that is split, such as `logs_p202601`."
    )
    table_name: Mapped[str] = mapped_column(NAME, doc="The partitioned table, such as `logs`.")
    relation_oid: Mapped[int] = mapped_column(doc="The OID of the partition.")
    file_node: Mapped[int] = mapped_column(
        doc="The number of its file, which changes if the partition is rewritten."
    )
    definition: Mapped[str] = mapped_column(
        NAME, doc="A digest of the table's columns, indexes and constraints."
    )
    new_tables: Mapped[list[Any]] = mapped_column(
        JSON, doc="The new tables: name, OID, and the bounds of their ranges."
    )
    block_count: Mapped[int] = mapped_column(
        doc="The pages that the partition had when the split began."
    )
    next_block: Mapped[int] = mapped_column(doc="The first page that has not been copied.")
    changed_since: Mapped[str] = mapped_column(
        NAME, doc="The transaction id from which on changes of the partition are not copied."
    )
    is_replaced: Mapped[bool] = mapped_column(
        server_default=text("false"),
        doc="Whether the new tables have taken its place, so that only dropping it is left.",
    )
