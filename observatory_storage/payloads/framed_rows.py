"""Reads rows whose large values stand in frames, with their whole attributes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson
import sqlalchemy as sa
from msgspec import Raw
from msgspec.json import Decoder
from sqlalchemy.orm import Session

from observatory_storage.payloads.frame import DamagedFrame
from observatory_storage.payloads.moved_values import preview_of
from observatory_storage.payloads.stored_frames import FrameKey, hour_of, owner_of, read_frames
from observatory_storage.payloads.word_blocks import HourKey
from observatory_storage.tables import EVENTS, SPANS
from observatory_storage.times import MICROSECOND

__all__ = ["WholeRow", "framed_rows"]

_log = logging.getLogger(__name__)
_HOUR: Final = timedelta(hours=1)
# Maintenance may pack the frames of a row anew between two statements.
_ATTEMPTS: Final = 4
_raw: Final = Decoder(dict[str, Raw])


class WholeRow(NamedTuple):
    """A span or an event that refers to a frame.

    Attributes:
        trace_id, span_id, start_time, start_ns: the key of the span.
        event_name: None if it is the span itself.
        attributes: the JSON text of its whole attributes, by name.
    """

    trace_id: UUID
    span_id: str
    start_time: datetime
    start_ns: int
    event_name: str | None
    attributes: Mapping[str, bytes]


def _any(_: bytes) -> bool:
    return True


def framed_rows(
    connection: sa.Connection | Session,
    keys: Collection[HourKey],
    may_be_wanted: Callable[[bytes], bool] = _any,
) -> dict[HourKey, list[WholeRow]]:
    """The spans and events of these hours of traces that refer to frames.

    It runs two statements. What cannot be read of a frame is logged; its rows have previews.

    Args:
        may_be_wanted: whether a row may be wanted whose attributes are among this JSON text, in
            lower case. Other rows are left out.

    Raises:
        ConfigError: Zstandard is not installed.
    """
    found: dict[HourKey, list[WholeRow]] = {}
    left = set(keys)
    for attempt in range(_ATTEMPTS):
        if not left:
            break
        rows = [(row, _frame_of(row)) for row in connection.execute(_selected(left))]
        frames = read_frames(connection, {key for _, key in rows})
        broken = {key: frame for key, frame in frames.items() if isinstance(frame, DamagedFrame)}
        is_last = attempt + 1 == _ATTEMPTS
        again = set() if is_last else {HourKey(key.trace_id, key.start_time) for key in broken}
        found.update((hour, []) for hour in left - again)
        for row, key in rows:
            hour = HourKey(key.trace_id, key.start_time)
            if hour in again:
                continue
            frame = frames[key]
            owner = owner_of(row.span_id, row.start_time, row.start_ns, row.position)
            values = {} if isinstance(frame, DamagedFrame) else frame.get(owner, {})
            text = b"".join((row.attributes.encode(), *values.values())).lower()
            if may_be_wanted(text):
                found[hour].append(_whole(row, values))
        left = again
        if is_last:
            for error in broken.values():
                _log.error("%s", error)
    return found


def _selected(keys: Iterable[HourKey]) -> Any:
    wanted = sorted(keys)
    hours = [key.start_time for key in wanted]
    arrays = [
        sa.literal([key.trace_id for key in wanted], sa.ARRAY(sa.Uuid())),
        sa.literal(hours, sa.ARRAY(sa.DateTime(timezone=True))),
    ]
    given = sa.func.unnest(*arrays).table_valued("trace_id", "hour").render_derived(name="given")
    selected = []
    for table, start_name, ns_name in (
        (SPANS.table, "start_time", "start_ns"),
        (EVENTS.table, "span_start_time", "span_start_ns"),
    ):
        rows, start = table.c, table.c[start_name]
        of_event = "position" in rows
        selected.append(
            sa.select(
                rows.trace_id,
                rows.span_id,
                start.label("start_time"),
                rows[ns_name].label("start_ns"),
                (rows.position if of_event else sa.cast(sa.null(), sa.Integer)).label("position"),
                (rows.name if of_event else sa.cast(sa.null(), sa.Text)).label("event_name"),
                rows.payload_frame,
                sa.cast(rows.attributes, sa.Text).label("attributes"),
            )
            .join_from(
                given,
                table,
                sa.and_(
                    rows.trace_id == given.c.trace_id,
                    start >= given.c.hour,
                    start < given.c.hour + _HOUR,
                    rows.payload_frame.is_not(None),
                ),
            )
            # The bounds prune partitions when the statement is planned.
            .where(start.between(min(hours), max(hours) + (_HOUR - MICROSECOND)))
        )
    return sa.union_all(*selected)


def _frame_of(row: Any) -> FrameKey:
    return FrameKey(row.trace_id, hour_of(row.start_time), row.payload_frame)


def _whole(row: Any, values: Mapping[str, bytes]) -> WholeRow:
    attributes = {key: bytes(raw) for key, raw in _raw.decode(row.attributes).items()}
    for key, value in values.items():
        stored = attributes.get(key)
        if stored is not None and orjson.loads(stored) == preview_of(value):
            attributes[key] = value
    start = row.start_time.astimezone(UTC)
    return WholeRow(row.trace_id, row.span_id, start, row.start_ns, row.event_name, attributes)
