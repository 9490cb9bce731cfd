"""Frames of large values, which stand beside their rows, compressed."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import BigInteger
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from observatory_storage.models.base import Base, Bytes, now

__all__ = ["LogFrame", "PayloadFrame"]


class _Frame:
    """The columns of both kinds of frames."""

    _shown = "trace_id start_time id value_bytes"

    trace_id: Mapped[uuid.UUID] = mapped_column(primary_key=True, doc="The `id` of its trace.")
    start_time: Mapped[datetime] = mapped_column(
        primary_key=True, doc="The hour of its rows, in UTC, so that it is in their partition."
    )
    id: Mapped[int] = mapped_column(
        primary_key=True, autoincrement=False, doc="A random number: `payload_frame` of its rows."
    )
    value_bytes: Mapped[int] = mapped_column(doc="The size of its values before compression.")
    data: Mapped[bytes] = mapped_column(Bytes(), doc="The values, compressed by Zstandard.")
    packed_ids: Mapped[list[int] | None] = mapped_column(
        ARRAY(BigInteger),
        doc="The ids of the frames whose values it has taken over, which their rows still name."
        " None until maintenance has packed the frames of the trace.",
    )
    created_at: Mapped[datetime] = now("When it was written.")

    __table_args__ = ({"postgresql_partition_by": "RANGE (start_time)"},)


class PayloadFrame(_Frame, Base):
    """Large values of the attributes of one trace's spans and events, compressed together.

    Spans and events refer to it by their trace id, the hour of the span's start, and the frame's
    id, or one of the ids that it has taken over. `observatory_storage.payloads.frame` describes
    the format of the data.
    """

    __tablename__ = "payload_frames"


class LogFrame(_Frame, Base):
    """Large values of the attributes and bodies of one trace's log records, compressed together.

    It is to log records what `PayloadFrame` is to spans and events. It has a table of its own,
    because log records are kept for a time of their own, and go with their partitions.
    """

    __tablename__ = "log_frames"
