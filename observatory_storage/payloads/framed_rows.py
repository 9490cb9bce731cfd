"""Reads rows whose large values stand in frames, with their whole prompts and completions."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

import orjson
import sqlalchemy as sa
from msgspec import Raw
from msgspec.json import Decoder
from sqlalchemy.orm import Session

from observatory_storage.payloads.content_words import MOST_CHARACTERS, is_content
from observatory_storage.payloads.frame import DamagedFrame, Frame, content_of
from observatory_storage.payloads.frame_keys import FrameKey, owner_of
from observatory_storage.payloads.moved_values import preview_of
from observatory_storage.payloads.stored_frames import opened
from observatory_storage.payloads.word_blocks import HourKey
from observatory_storage.tables import EVENTS, PAYLOAD_FRAMES, SPANS

__all__ = ["WholeRow", "framed_rows"]

_log = logging.getLogger(__name__)
_HOUR: Final = timedelta(hours=1)
# Maintenance may pack the frames of a row anew between two statements.
_ATTEMPTS: Final = 4
_raw: Final = Decoder(dict[str, Raw])
# The letters beyond ASCII that PostgreSQL may take for a letter of ASCII in another case, as they
# are and as JSON escapes them: the letters i of Turkish, and the sign of Kelvin.
_FOLDED: Final = {"\u0130": "i", "\u0131": "i", "\u212a": "k"}
_ODD_LETTERS: Final = "|".join((*_FOLDED, "u013[01]", "u212[aA]"))

_FRAMES: Final = PAYLOAD_FRAMES.table
_TYPES: Final[dict[str, Any]] = {
    "numbers": sa.Integer(),
    "trace_ids": sa.Uuid(),
    "hours": sa.DateTime(timezone=True),
    "lacking": sa.Text(),
}


def _given(*names: str) -> sa.TableValuedAlias:
    """A table of bind parameters, each an array with a column of its own."""
    arrays = (sa.bindparam(name, type_=sa.ARRAY(_TYPES[name])) for name in names)
    return sa.func.unnest(*arrays).table_valued(*names).render_derived(name="given")


_HOURS: Final = _given("numbers", "trace_ids", "hours")
_FIRST, _LAST, _END = (
    sa.bindparam(name, type_=sa.DateTime(timezone=True)) for name in ("first", "last", "end")
)
# In both statements, the bounds prune partitions when the statement is planned.
_DATA: Final = (
    sa.select(_HOURS.c.numbers, _FRAMES.c.id, _FRAMES.c.packed_ids, _FRAMES.c.data)
    .join_from(
        _HOURS,
        _FRAMES,
        sa.and_(_FRAMES.c.trace_id == _HOURS.c.trace_ids, _FRAMES.c.start_time == _HOURS.c.hours),
    )
    .where(_FRAMES.c.start_time.between(_FIRST, _LAST))
)


def _rows() -> sa.CompoundSelect[Any]:
    """The rows with frames of the given hours that match the pattern of their hour."""
    given = _given("numbers", "trace_ids", "hours", "lacking")
    selected = []
    for table, start_name, ns_name in (
        (SPANS.table, "start_time", "start_ns"),
        (EVENTS.table, "span_start_time", "span_start_ns"),
    ):
        rows, start = table.c, table.c[start_name]
        of_event = "position" in rows
        attributes = sa.cast(rows.attributes, sa.Text)
        selected.append(
            sa.select(
                given.c.numbers.label("number"),
                rows.trace_id,
                rows.span_id,
                start.label("start_time"),
                rows[ns_name].label("start_ns"),
                (rows.position if of_event else sa.cast(sa.null(), sa.Integer)).label("position"),
                (rows.name if of_event else sa.cast(sa.null(), sa.Text)).label("event_name"),
                rows.payload_frame,
                attributes.label("attributes"),
            )
            .join_from(
                given,
                table,
                sa.and_(
                    rows.trace_id == given.c.trace_ids,
                    start >= given.c.hours,
                    start < given.c.hours + _HOUR,
                    rows.payload_frame.is_not(None),
                ),
            )
            .where(
                start >= _FIRST,
                start < _END,
                sa.or_(
                    given.c.lacking == "",
                    sa.func.lower(sa.collate(attributes, "C")).regexp_match(given.c.lacking),
                    attributes.regexp_match(_ODD_LETTERS),
                ),
            )
        )
    return sa.union_all(*selected)


_ROWS: Final = _rows()


class WholeRow(NamedTuple):
    """A span or an event that refers to a frame.

    Attributes:
        trace_id, span_id, start_time, start_ns: the key of the span.
        event_name: None if it is the span itself.
        content: the JSON text of its whole attributes that may be prompts or completions, by name.
    """

    trace_id: UUID
    span_id: str
    start_time: datetime
    start_ns: int
    event_name: str | None
    content: Mapping[str, bytes]


def framed_rows(
    connection: sa.Connection | Session,
    keys: Collection[HourKey],
    wanted: Sequence[Sequence[bytes]] = ((),),
) -> dict[HourKey, list[WholeRow]]:
    """The spans and events of these hours of traces that refer to frames.

    It runs two statements. What cannot be read of a frame is logged; its rows have previews.

    Args:
        wanted: lists of runs of ASCII letters and digits, in lower case. Only the rows are found
            whose attributes have all runs of one of the lists, in any case.

    Raises:
        ConfigError: Zstandard is not installed.
    """
    found: dict[HourKey, list[WholeRow]] = {key: [] for key in keys}
    left = sorted(found)
    for attempt in range(_ATTEMPTS):
        if not left:
            break
        data = _frames(connection, left)
        rows = connection.execute(_ROWS, {**_values(left), "lacking": _lacking(wanted, data)}).all()
        places = {(row.number, row.payload_frame) for row in rows}
        frames = _opened(left, data, places)
        broken = {
            place: frame for place, frame in frames.items() if isinstance(frame, DamagedFrame)
        }
        is_last = attempt + 1 == _ATTEMPTS
        again = set() if is_last else {number for number, _ in broken}
        for row in rows:
            if row.number in again:
                continue
            frame = frames[row.number, row.payload_frame]
            owner = owner_of(row.span_id, row.start_time, row.start_ns, row.position)
            values = {} if isinstance(frame, DamagedFrame) else frame.get(owner, {})
            if _has_one(wanted, (row.attributes.encode(), *values.values())):
                found[left[row.number]].append(_with_content(row, values))
        if is_last:
            for error in broken.values():
                _log.error("%s", error)
        left = [left[number] for number in sorted(again)]
    return found


def _values(keys: Sequence[HourKey]) -> dict[str, Any]:
    hours = [key.start_time for key in keys]
    return {
        "numbers": list(range(len(keys))),
        "trace_ids": [key.trace_id for key in keys],
        "hours": hours,
        "first": min(hours),
        "last": max(hours),
        "end": max(hours) + _HOUR,
    }


def _frames(connection: sa.Connection | Session, keys: Sequence[HourKey]) -> list[dict[int, bytes]]:
    """The data of the frames of each of these hours, by the ids that rows may name."""
    found: list[dict[int, bytes]] = [{} for _ in keys]
    for number, frame, packed, data in connection.execute(_DATA, _values(keys)):
        found[number] |= dict.fromkeys((frame, *(packed or ())), data)
    return found


def _opened(
    keys: Sequence[HourKey], data: Sequence[Mapping[int, bytes]], places: Iterable[tuple[int, int]]
) -> dict[tuple[int, int], Frame | DamagedFrame]:
    """Frames by the number of the hour and the id; one that rows name by several ids once."""
    known: dict[int, Frame | DamagedFrame] = {}
    found = {}
    for number, frame in places:
        stored = data[number].get(frame)
        if stored is None or id(stored) not in known:
            known[id(stored)] = opened(FrameKey(*keys[number], frame), stored)
        found[number, frame] = known[id(stored)]
    return found


def _lacking(wanted: Sequence[Sequence[bytes]], frames: Iterable[Mapping[int, bytes]]) -> list[str]:
    """For each hour, the pattern of what its rows must have themselves: its frames lack it."""
    if not all(wanted):
        return ["" for _ in frames]
    return [_pattern(wanted, set(of_hour.values())) for of_hour in frames]


def _pattern(wanted: Sequence[Sequence[bytes]], frames: Iterable[bytes]) -> str:
    try:
        texts = [_folded(content_of(data)) for data in frames]
    except DamagedFrame:
        return ""
    found = []
    for runs in wanted:
        absent = [run for run in runs if not any(run in text for text in texts)]
        if not absent:
            return ""
        # A regular expression of a very long text would be slow.
        found.append(max(absent, key=len)[:MOST_CHARACTERS])
    # Letters and digits mean themselves.
    return b"|".join(found).decode()


def _folded(text: bytes) -> bytes:
    """The text in lower case. Where it has odd letters, it follows again with those of ASCII."""
    lower = folded = text.lower()
    for odd, plain in _FOLDED.items():
        for written in (odd.encode(), f"u{ord(odd):04x}".encode()):
            folded = folded.replace(written, plain.encode())
    return lower if folded == lower else lower + b" " + folded


def _has_one(wanted: Sequence[Sequence[bytes]], parts: Iterable[bytes]) -> bool:
    """Whether JSON text has all runs of one of the lists."""
    if not all(wanted):
        return True
    text = _folded(b"".join(parts))
    return any(all(run in text for run in runs) for runs in wanted)


def _with_content(row: Any, values: Mapping[str, bytes]) -> WholeRow:
    content = {}
    for key, raw in _raw.decode(row.attributes).items():
        if is_content(key):
            stored, value = bytes(raw), values.get(key)
            is_moved = value is not None and orjson.loads(stored) == preview_of(value)
            content[key] = value if value is not None and is_moved else stored
    start = row.start_time.astimezone(UTC)
    return WholeRow(row.trace_id, row.span_id, start, row.start_ns, row.event_name, content)
