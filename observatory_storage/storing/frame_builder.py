"""Moves large values of the rows of a flush into payload frames, one for each trace and hour."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from itertools import chain, islice
from typing import Any, Final
from uuid import UUID

from observatory_storage.llm.log_facts import may_tell_facts
from observatory_storage.payloads import (
    FULL_FRAME_BYTES,
    OF_SPANS,
    FrameKey,
    FrameSet,
    Member,
    Owner,
    frame_row,
    hour_of,
    move_from_log,
    move_large,
    new_frame_id,
    note_changed,
    owner_of,
)
from observatory_storage.rows import Row
from observatory_storage.storing.binary_copy import copy_parts
from observatory_storage.storing.conflict_rules import FRAMES
from observatory_storage.storing.upsert import Loader, chosen_method
from observatory_storage.tables import (
    EVENTS,
    LOGS,
    PAYLOAD_FRAMES,
    SPAN_KEY_OF_EVENT,
    SPANS,
    Values,
)
from observatory_storage.times import MICROSECOND, UNIX_EPOCH

__all__ = ["FrameBuilder", "OwnerKey", "event_owner", "load_frames", "log_owner", "span_owner"]

OwnerKey = tuple[UUID, Owner]
"""The id of a trace, and one of its rows."""

# After so many parts without a value of its trace, a frame is packed: the others are in memory.
_IDLE_PARTS: Final = 5
# So many frames are packed while the server inserts those before them.
_PACKED_TOGETHER: Final = 10
_ALMOST_AN_HOUR: Final = timedelta(hours=1) - MICROSECOND
_INLINE: Final = (None, None)
_TRACE_ID, _SPAN_ID, _START, _START_NS, _ATTRIBUTES = SPANS.positions(
    "trace_id", "span_id", "start_time", "start_ns", "attributes"
)
_EVENT_TRACE_ID, _EVENT_SPAN_ID, _EVENT_START, _EVENT_START_NS = EVENTS.positions(
    *SPAN_KEY_OF_EVENT
)
_POSITION, _EVENT_ATTRIBUTES = EVENTS.positions("position", "attributes")
_LOG_TRACE_ID, _LOG_ID, _TIME, _TIME_NS, _LOG_ATTRIBUTES, _BODY = LOGS.positions(
    "trace_id", "id", "timestamp", "timestamp_ns", "attributes", "body_json"
)


def span_owner(values: Values) -> OwnerKey:
    """The owner of the values of a prepared span."""
    return values[_TRACE_ID], owner_of(values[_SPAN_ID], values[_START], values[_START_NS])


def event_owner(values: Values) -> OwnerKey:
    """The owner of the values of a prepared event."""
    span = values[_EVENT_SPAN_ID], values[_EVENT_START], values[_EVENT_START_NS]
    return values[_EVENT_TRACE_ID], owner_of(*span, values[_POSITION])


def log_owner(values: Values) -> OwnerKey:
    """The owner of the values of a prepared log record that names a trace."""
    return values[_LOG_TRACE_ID], owner_of(values[_LOG_ID].hex, values[_TIME], values[_TIME_NS])


class _Open:
    """A frame that takes more members."""

    __slots__ = ("key", "members", "part", "size")

    def __init__(self, key: FrameKey) -> None:
        self.key = key
        self.members: list[Member] = []
        self.size = 0
        self.part = 0

    def row(self) -> Values:
        row = frame_row(self.key, self.members)
        return tuple(row[column] for column in PAYLOAD_FRAMES.columns)


class FrameBuilder:
    """Moves large values out of rows, and makes the rows of their frames.

    Args:
        threshold: the bytes of attributes that a row may keep; None leaves all in the rows.
        of: which frames are made.
    """

    def __init__(self, threshold: int | None, of: FrameSet = OF_SPANS) -> None:
        self._threshold = threshold
        self.of = of
        self._open: dict[tuple[int, datetime], _Open] = {}
        self._complete: list[_Open] = []
        self._packed: list[tuple[FrameKey, Values]] = []
        self._part = 0
        self._hour = UNIX_EPOCH

    def may_move(self, spans: Iterable[Row]) -> bool:
        """Whether any of the spans, without their events, may have large values."""
        threshold = self._threshold
        if threshold is None:
            return False
        return any(len(row[1][_ATTRIBUTES]) > threshold for row in spans)  # by position: it is fast

    def spans(self, spans: Iterable[Row]) -> list[Values]:
        """The values of prepared spans with their payload columns."""
        rows = ((row.values, row.attributes) for row in spans)
        return self._framed(rows, _ATTRIBUTES, _START, span_owner)

    def events(self, events: Iterable[Values]) -> list[Values]:
        """Prepared events with their payload columns."""
        rows = ((values, None) for values in events)
        return self._framed(rows, _EVENT_ATTRIBUTES, _EVENT_START, event_owner)

    def is_large_log(self, values: Values) -> bool:
        """Whether a prepared log record may have large values. Frames need its trace."""
        threshold, body = self._threshold, values[_BODY]
        return (
            threshold is not None
            and values[_LOG_TRACE_ID] is not None
            and (
                len(values[_LOG_ATTRIBUTES]) > threshold
                or (body is not None and len(body) > threshold)
            )
        )

    def logs(self, logs: Iterable[Values]) -> list[Values]:
        """Prepared log records with their payload columns."""
        is_large = self.is_large_log
        return [self._log(v) if is_large(v) else v + _INLINE for v in logs]

    def _log(self, values: Values) -> Values:
        assert self._threshold is not None
        moved = move_from_log(
            values[_LOG_ATTRIBUTES], values[_BODY], self._threshold, stays=may_tell_facts
        )
        if moved is None:
            return values + _INLINE
        frame = self._frame(log_owner(values), values[_TIME], moved.values)
        framed = list(values)
        framed[_LOG_ATTRIBUTES], framed[_BODY] = moved.columns
        return (*framed, frame, moved.digests)

    def _framed(
        self,
        rows: Iterable[tuple[Values, Mapping[str, Any] | None]],
        attributes: int,
        start: int,
        owner_of_row: Callable[[Values], OwnerKey],
    ) -> list[Values]:
        """The rows with their payload columns.

        Args:
            rows: the values of each row, and the attributes that they have encoded, if known.
            attributes, start: the positions of the attributes and of the span's start.
        """
        threshold, framed = self._threshold, []
        for values, given in rows:
            encoded = values[attributes]
            if (
                threshold is None
                or len(encoded) <= threshold
                or (moved := move_large(encoded, threshold, given)) is None
            ):
                framed.append(values + _INLINE)
            else:
                frame = self._frame(owner_of_row(values), values[start], moved.values)
                before, after = values[:attributes], values[attributes + 1 :]
                framed.append((*before, moved.attributes, *after, frame, moved.digests))
        return framed

    def end_part(self) -> None:
        """Pack the frames of traces that the last parts had no values of.

        Not in another thread: that would cost a third more, since it could run only when this one
        waits for it.
        """
        self._part += 1
        idle = self._part - _IDLE_PARTS
        places = [place for place, frame in self._open.items() if frame.part < idle]
        self._complete += [self._open.pop(place) for place in places]
        self._packed += [(frame.key, frame.row()) for frame in self._complete]
        self._complete = []

    def frames(
        self, written: AbstractSet[OwnerKey] | None = None
    ) -> tuple[list[FrameKey], Iterator[Values]]:
        """All frames, which are then complete: their keys, and their rows.

        Args:
            written: leave out the values of all other rows. No part has been ended then.
        """
        rest, self._complete, self._open = [*self._complete, *self._open.values()], [], {}
        if written is not None:
            for frame in rest:
                trace_id = frame.key.trace_id
                frame.members = [m for m in frame.members if (trace_id, m.owner) in written]
            rest = [frame for frame in rest if frame.members]
        before, self._packed = self._packed, []
        keys = [*(key for key, _ in before), *(frame.key for frame in rest)]
        return keys, chain((row for _, row in before), (frame.row() for frame in rest))

    @property
    def has_values(self) -> bool:
        """Whether any value was moved."""
        return bool(self._open or self._complete or self._packed)

    def _frame(self, owner: OwnerKey, start: datetime, values: Mapping[str, bytes]) -> int:
        """Add the values to a frame, and return its id."""
        trace_id, of_trace = owner
        if not self._hour <= start <= self._hour + _ALMOST_AN_HOUR:
            self._hour = hour_of(start)
        place = trace_id.int, self._hour
        frame = self._open.get(place)
        if frame is None:
            frame = self._open[place] = _Open(self.of.key(trace_id, self._hour, new_frame_id()))
        frame.members.append(Member(of_trace, values))
        frame.size += sum(map(len, values.values()))
        frame.part = self._part
        if frame.size >= FULL_FRAME_BYTES:
            self._complete.append(self._open.pop(place))
        return frame.key.id


def load_frames(
    loader: Loader, builder: FrameBuilder, written: AbstractSet[OwnerKey] | None = None
) -> None:
    """Insert the frames of the builder, whose words are then to be indexed.

    Args:
        written: see `FrameBuilder.frames`.
    """
    target = FRAMES[builder.of.definition.name]
    keys, rows = builder.frames(written)
    if chosen_method(loader.method, len(keys)) == "copy":
        # The last ones are packed while the server inserts those before them.
        parts = iter(lambda: list(islice(rows, _PACKED_TOGETHER)), [])
        copy_parts(loader.connection, target, parts, target.target, loader.sent)
    else:
        loader.load(target, list(rows))
    note_changed(loader.connection, keys)
