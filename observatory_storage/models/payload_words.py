"""The words of prompts and completions that stand in payload frames, for text searches."""

from __future__ import annotations

import uuid
from datetime import datetime

from sqlalchemy import Identity, Index
from sqlalchemy.orm import Mapped, mapped_column

from observatory_storage.models.base import NAME, Base, Bytes, now

__all__ = ["PayloadSegment", "PayloadUnindexed", "PayloadWords"]


class PayloadUnindexed(Base):
    """An hour of a trace whose frames have changed since their words were indexed.

    Whoever inserts, rewrites or deletes a frame adds a row in the same transaction. There may be
    several for one hour of a trace.
    """

    __tablename__ = "payload_unindexed"
    _shown = "id trace_id start_time"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True, doc="A number.")
    trace_id: Mapped[uuid.UUID] = mapped_column(doc="The `trace_id` of the frame.")
    start_time: Mapped[datetime] = mapped_column(doc="The `start_time` of the frame.")
    lost_values: Mapped[bool] = mapped_column(
        doc="Whether values have left the frames, so that their words are to be forgotten."
    )


class PayloadSegment(Base):
    """Hours of traces whose words have been indexed together. All are of one day in UTC.

    `observatory_storage.payloads.word_blocks` describes the format of the hours.
    """

    __tablename__ = "payload_segments"
    _shown = "id first_start last_start key_count"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True, doc="A number.")
    first_start: Mapped[datetime] = mapped_column(doc="The first of its hours.")
    last_start: Mapped[datetime] = mapped_column(doc="The last of its hours.")
    key_count: Mapped[int] = mapped_column(doc="The number of hours of traces.")
    hours: Mapped[bytes] = mapped_column(
        Bytes(), doc="The trace and the hour of each ordinal, in records of one size."
    )
    created_at: Mapped[datetime] = now("When it was written.")

    __table_args__ = (Index("ix_payload_segments_last_start", "last_start"),)


class PayloadWords(Base):
    """A block of a segment: words that follow each other, each with the ordinals that have it.

    `observatory_storage.payloads.word_blocks` describes the format of the data.
    """

    __tablename__ = "payload_words"
    _shown = "segment_id first_word"

    segment_id: Mapped[int] = mapped_column(
        primary_key=True, autoincrement=False, doc="The `id` of its segment."
    )
    first_word: Mapped[str] = mapped_column(NAME, primary_key=True, doc="The first of its words.")
    data: Mapped[bytes] = mapped_column(
        Bytes(), doc="The words and their ordinals, compressed by Zstandard."
    )
