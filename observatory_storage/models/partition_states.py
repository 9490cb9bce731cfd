"""What maintenance has done with each partition."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Mapped, mapped_column

from observatory_storage.models.base import NAME, Base

__all__ = ["PartitionState"]


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
