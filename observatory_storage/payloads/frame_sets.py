"""The tables of payload frames, and the tables whose rows have values in them.

Spans and events have their frames in one table, log records in another, since they are kept for
different times. All that is done with frames is the same for both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa

from observatory_storage.payloads.frame import Owner
from observatory_storage.payloads.frame_keys import FrameKey, LogFrameKey, hour_of, owner_of
from observatory_storage.payloads.log_values import LOG_COLUMNS, flat_digests, put_back_log_text
from observatory_storage.payloads.moved_values import put_back_text
from observatory_storage.tables import (
    EVENTS,
    LOG_FRAMES,
    LOGS,
    PAYLOAD_FRAMES,
    SPANS,
    TableDefinition,
)

__all__ = ["FRAME_SETS", "OF_LOGS", "OF_SPANS", "FrameSet", "OwnerTable"]


@dataclass(frozen=True, eq=False)
class OwnerTable:
    """A table whose rows may have values in frames.

    Attributes:
        definition: the table.
        start: the column of the time whose hour decides the frame.
        start_ns: the column of its nanoseconds.
        identity: the column that `Owner.span_id` is made of.
    """

    definition: TableDefinition
    start: str
    start_ns: str
    identity: str = "span_id"

    @property
    def table(self) -> sa.Table:
        return self.definition.table

    @property
    def of(self) -> FrameSet:
        """The frames of its rows."""
        return OF_LOGS if self.definition is LOGS else OF_SPANS

    @property
    def moving(self) -> tuple[str, ...]:
        """The columns whose values move."""
        return LOG_COLUMNS if self.definition is LOGS else ("attributes",)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the owner and of its frame."""
        position = ("position",) if "position" in self.table.c else ()
        return ("trace_id", self.identity, self.start, self.start_ns, *position, "payload_frame")

    def owner(self, row: Mapping[Any, Any]) -> Owner:
        """The owner of the values of a row."""
        identity = row[self.identity]
        name = identity.hex if isinstance(identity, UUID) else identity
        return owner_of(name, row[self.start], row[self.start_ns], row.get("position"))

    def put_back_text(self, column: str, text: bytes, values: Mapping[str, bytes]) -> bytes:
        """A column of a row as JSON text, with its whole values instead of previews."""
        if self.definition is LOGS:
            return put_back_log_text(column, text, values)
        return put_back_text(text, values)

    def digests(self, row: Mapping[Any, Any]) -> dict[str, str]:
        """The digests of a row, by the names that its values have in a frame."""
        digests: dict[str, Any] = row["payload_digests"] or {}
        return flat_digests(digests) if self.definition is LOGS else digests


@dataclass(frozen=True, eq=False)
class FrameSet:
    """A table of frames, and the tables whose rows have values in them.

    Attributes:
        definition: the table of frames.
        owners: the tables of rows.
        has_locked_traces: whether whoever changes frames has locked the row of their trace. Log
            records may have no such row.
    """

    definition: TableDefinition
    owners: tuple[OwnerTable, ...]
    has_locked_traces: bool

    @cached_property
    def table(self) -> sa.Table:
        return self.definition.table

    def key(self, trace_id: UUID, start: datetime, frame_id: int) -> FrameKey:
        """The key of the frame of a row with this time."""
        kind = FrameKey if self is OF_SPANS else LogFrameKey
        return kind(trace_id, hour_of(start), frame_id)


OF_SPANS: Final = FrameSet(
    PAYLOAD_FRAMES,
    (
        OwnerTable(SPANS, "start_time", "start_ns"),
        OwnerTable(EVENTS, "span_start_time", "span_start_ns"),
    ),
    has_locked_traces=True,
)
OF_LOGS: Final = FrameSet(
    LOG_FRAMES, (OwnerTable(LOGS, "timestamp", "timestamp_ns", "id"),), has_locked_traces=False
)
FRAME_SETS: Final = (OF_SPANS, OF_LOGS)
