"""Reads rows with frames, hour by hour of their traces, and opens their frames."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session

from observatory_storage.payloads.content_words import MOST_CHARACTERS
from observatory_storage.payloads.frame import DamagedFrame, Frame, Owner, content_of
from observatory_storage.payloads.frame_sets import FRAME_SETS, FrameSet
from observatory_storage.payloads.stored_frames import opened
from observatory_storage.payloads.word_blocks import HourKey

__all__ = ["FramedKind", "given_hours", "is_framed_within", "may_have"]

_log = logging.getLogger(__name__)
_HOUR: Final = timedelta(hours=1)
# Maintenance may pack the frames of a row anew between two statements.
_ATTEMPTS: Final = 4
# The letters beyond ASCII that PostgreSQL may take for a letter of ASCII in another case, as they
# are and as JSON escapes them: the letters i of Turkish, and the sign of Kelvin.
_FOLDED: Final = {"\u0130": "i", "\u0131": "i", "\u212a": "k"}
_ODD_LETTERS: Final = "|".join((*_FOLDED, "u013[01]", "u212[aA]"))

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


# In all statements, the bounds prune partitions when the statement is planned.
def _data(of: FrameSet) -> sa.Select[Any]:
    """The frames of the given hours."""
    frames = of.table
    return (
        sa.select(_HOURS.c.numbers, frames.c.id, frames.c.packed_ids, frames.c.data)
        .join_from(
            _HOURS,
            frames,
            sa.and_(frames.c.trace_id == _HOURS.c.trace_ids, frames.c.start_time == _HOURS.c.hours),
        )
        .where(frames.c.start_time.between(_FIRST, _LAST))
    )


def given_hours() -> sa.TableValuedAlias:
    """The given hours of traces, each with a number and the pattern of its rows."""
    return _given("numbers", "trace_ids", "hours", "lacking")


def is_framed_within(given: Any, rows: Any, start: Any) -> sa.ColumnElement[bool]:
    """Whether a row of a given hour has values in a frame."""
    return sa.and_(
        rows.trace_id == given.trace_ids,
        start >= given.hours,
        start < given.hours + _HOUR,
        start >= _FIRST,
        start < _END,
        rows.payload_frame.is_not(None),
    )


def may_have(text: sa.ColumnElement[str], lacking: Any) -> sa.ColumnElement[bool]:
    """Whether the text of a row matches the pattern of its hour."""
    return sa.or_(
        lacking == "",
        sa.func.lower(sa.collate(text, "C")).regexp_match(lacking),
        text.regexp_match(_ODD_LETTERS),
    )


_Whole = TypeVar("_Whole")
_DATA: Final = {of: _data(of) for of in FRAME_SETS}


@dataclass(frozen=True)
class FramedKind(Generic[_Whole]):
    """How rows with frames are read.

    Attributes:
        of: their frames.
        rows: the statement for the rows.
        owner_of: the owner of the values of a row.
        text_of: the text of a row that is searched.
        whole: the row with its values.
    """

    of: FrameSet
    rows: sa.Select[Any] | sa.CompoundSelect[Any]
    owner_of: Callable[[Any], Owner]
    text_of: Callable[[Any], str]
    whole: Callable[[Any, Mapping[str, bytes]], _Whole]

    def read(
        self,
        connection: sa.Connection | Session,
        keys: Collection[HourKey],
        wanted: Sequence[Sequence[bytes]],
    ) -> dict[HourKey, list[_Whole]]:
        """The rows of these hours of traces; see `framed_rows.framed_rows`."""
        found: dict[HourKey, list[_Whole]] = {key: [] for key in keys}
        left = sorted(found)
        for attempt in range(_ATTEMPTS):
            if not left:
                break
            data = _frames(connection, self.of, left)
            values = {**_values(left), "lacking": _lacking(wanted, data)}
            rows = connection.execute(self.rows, values).all()
            places = {(row.number, row.payload_frame) for row in rows}
            frames = _opened(self.of, left, data, places)
            broken = {
                place: frame for place, frame in frames.items() if isinstance(frame, DamagedFrame)
            }
            is_last = attempt + 1 == _ATTEMPTS
            again = set() if is_last else {number for number, _ in broken}
            for row in rows:
                if row.number in again:
                    continue
                frame = frames[row.number, row.payload_frame]
                own: Mapping[str, bytes] = {}
                if not isinstance(frame, DamagedFrame):
                    own = frame.get(self.owner_of(row), {})
                if _has_one(wanted, (self.text_of(row).encode(), *own.values())):
                    found[left[row.number]].append(self.whole(row, own))
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


def _frames(
    connection: sa.Connection | Session, of: FrameSet, keys: Sequence[HourKey]
) -> list[dict[int, bytes]]:
    """The data of the frames of each of these hours, by the ids that rows may name."""
    found: list[dict[int, bytes]] = [{} for _ in keys]
    for number, frame, packed, data in connection.execute(_DATA[of], _values(keys)):
        found[number] |= dict.fromkeys((frame, *(packed or ())), data)
    return found


def _opened(
    of: FrameSet,
    keys: Sequence[HourKey],
    data: Sequence[Mapping[int, bytes]],
    places: Iterable[tuple[int, int]],
) -> dict[tuple[int, int], Frame | DamagedFrame]:
    """Frames by the number of the hour and the id; one that rows name by several ids once."""
    known: dict[int, Frame | DamagedFrame] = {}
    found = {}
    for number, frame in places:
        stored = data[number].get(frame)
        if stored is None or id(stored) not in known:
            known[id(stored)] = opened(of.key(*keys[number], frame), stored)
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
