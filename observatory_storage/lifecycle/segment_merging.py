"""Writes segments of the words of payload frames, and merges small ones into larger ones."""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate, groupby
from operator import itemgetter
from typing import Any, Final, cast

import sqlalchemy as sa

from observatory_storage.distribution import is_sharded
from observatory_storage.models import LogFrame, PayloadFrame, PayloadSegment, PayloadWords
from observatory_storage.payloads.stored_frames import note_changed
from observatory_storage.payloads.word_blocks import (
    HourKey,
    blocks_of,
    count_of,
    encoded,
    is_frequent,
    joined,
    key_bytes,
    keys_of,
    ordinals_of,
    read_words,
)

__all__ = [
    "forget_expired",
    "holding",
    "merge_segments",
    "segments_to_merge",
    "without_frames",
    "write_segment",
]

_SEGMENTS: Final = cast(sa.Table, PayloadSegment.__table__)
_WORDS: Final = cast(sa.Table, PayloadWords.__table__)
_FRAMES: Final = tuple(cast(sa.Table, one.__table__) for one in (PayloadFrame, LogFrame))
_DAY: Final = timedelta(days=1)
# So many segments of one size class are merged into one. The next class is so many times larger.
_TOGETHER: Final = 8
# Larger segments are not merged: each merge writes all of its words anew.
_MOST_KEYS: Final = 100_000
_BLOCKS_AT_ONCE: Final = 100

# Words in the order of their bytes, each with its ordinals as they are stored.
_Words = Iterable[tuple[bytes, bytes]]


def write_segment(connection: sa.Connection, keys: Sequence[HourKey], words: _Words) -> None:
    """Write a segment.

    Args:
        keys: hours of traces of one day. Their places are their ordinals.
        words: as `blocks_of` takes them.
    """
    values = {
        "first_start": min(key.start_time for key in keys),
        "last_start": max(key.start_time for key in keys),
        "key_count": len(keys),
        "hours": key_bytes(keys),
    }
    added = sa.insert(_SEGMENTS).values(values).returning(_SEGMENTS.c.id)
    segment = connection.scalar(added)
    rows = [{"segment_id": segment, **block._asdict()} for block in blocks_of(words)]
    for start in range(0, len(rows), _BLOCKS_AT_ONCE):
        connection.execute(sa.insert(_WORDS), rows[start : start + _BLOCKS_AT_ONCE])


def segments_to_merge(connection: sa.Connection, now: datetime) -> list[int]:
    """The segments that shall become one: small ones of a day, or all of a day that is over."""
    selected = sa.select(_SEGMENTS.c.id, _SEGMENTS.c.first_start, _SEGMENTS.c.key_count)
    days: dict[Any, list[Any]] = defaultdict(list)
    for row in connection.execute(selected.order_by(_SEGMENTS.c.key_count)):
        days[row.first_start.astimezone(UTC).date()].append(row)
    over = (now - 2 * _DAY).date()
    for day, rows in days.items():
        classes: dict[int, list[Any]] = defaultdict(list)
        for row in rows:
            # Classes differ by a factor of eight.
            classes[0 if day <= over else row.key_count.bit_length() // 3].append(row)
        for alike in classes.values():
            enough = 2 if day <= over else _TOGETHER
            together = _within(alike, _MOST_KEYS)
            if len(together) >= enough:
                return [row.id for row in together]
    return []


def _within(rows: Sequence[Any], key_count: int) -> list[Any]:
    """The first rows, as long as they have no more keys in all."""
    found = []
    for row in rows:
        key_count -= row.key_count
        if key_count < 0:
            break
        found.append(row)
    return found


def merge_segments(
    connection: sa.Connection, ids: Collection[int], without: Collection[HourKey] = ()
) -> None:
    """Replace segments of one day by one.

    Args:
        without: the hours of traces that it shall not have.
    """
    selected = sa.select(_SEGMENTS.c.id, _SEGMENTS.c.hours).where(_SEGMENTS.c.id.in_(ids))
    stored = {row.id: keys_of(row.hours) for row in connection.execute(selected)}
    keys = [key for of_segment in stored.values() for key in of_segment]
    if without or len(set(keys)) < len(keys):
        keys = list(set(keys).difference(without))
        words = _remaining(connection, stored, {key: place for place, key in enumerate(keys)})
    else:
        words = _together(connection, stored)
    if keys:
        write_segment(connection, keys, words)
    _delete(connection, stored)


def _together(connection: sa.Connection, stored: Mapping[int, Sequence[HourKey]]) -> _Words:
    """The words of segments, whose keys follow each other."""

    def of_segment(segment: int, keys: int, before: int) -> Iterator[tuple[bytes, int, bytes]]:
        every_one = encoded(range(keys))
        for word, ordinals in _words(connection, segment):
            yield word, before, ordinals or every_one

    counts = [len(keys) for keys in stored.values()]
    *starts, key_count = accumulate(counts, initial=0)
    parts = [of_segment(*one) for one in zip(stored, counts, starts, strict=True)]
    for word, same in _by_word(parts):
        of_word = [(before, ordinals) for _, before, ordinals in same]
        is_common = is_frequent(sum(count_of(each) for _, each in of_word), key_count)
        yield word, b"" if is_common else joined(of_word)


def _remaining(
    connection: sa.Connection,
    stored: Mapping[int, Sequence[HourKey]],
    places: Mapping[HourKey, int],
) -> _Words:
    """The words of segments for these keys, which may stand in several segments."""

    def of_segment(segment: int, keys: Sequence[HourKey]) -> Iterator[tuple[bytes, list[int]]]:
        own = [places.get(key) for key in keys]
        for word, data in _words(connection, segment):
            ordinals = ordinals_of(data) or range(len(own))
            yield word, [place for each in ordinals if (place := own[each]) is not None]

    parts = [of_segment(*one) for one in stored.items()]
    for word, same in _by_word(parts):
        found = sorted({ordinal for _, ordinals in same for ordinal in ordinals})
        if found:
            yield word, b"" if is_frequent(len(found), len(places)) else encoded(found)


def _words(connection: sa.Connection, segment: int) -> Iterator[tuple[bytes, bytes]]:
    blocks = sa.select(_WORDS.c.data).where(_WORDS.c.segment_id == segment)
    for data in connection.scalars(blocks.order_by(_WORDS.c.first_word)).all():
        yield from read_words(data)


def _by_word(parts: Iterable[Iterable[Any]]) -> Iterator[tuple[bytes, Iterator[Any]]]:
    word_of = itemgetter(0)
    return groupby(heapq.merge(*parts, key=word_of), word_of)


def holding(connection: sa.Connection, keys: Collection[HourKey]) -> list[int]:
    """The segments that have some of these hours of traces."""
    if not keys:
        return []
    hours = [key.start_time for key in keys]
    selected = sa.select(_SEGMENTS.c.id, _SEGMENTS.c.hours).where(
        _SEGMENTS.c.last_start >= min(hours), _SEGMENTS.c.first_start <= max(hours)
    )
    return [
        row.id
        for row in connection.execute(selected)
        if not set(keys).isdisjoint(keys_of(row.hours))
    ]


def without_frames(connection: sa.Connection) -> int:
    """Remove the segments of times without frames: their partitions were dropped."""
    if is_sharded(connection):
        expired = _without_frames_on_shards(connection)
        _delete(connection, expired)
        return len(expired)
    gone = connection.scalars(
        sa.select(_SEGMENTS.c.id).where(
            *(
                ~sa.exists().where(
                    frames.c.start_time >= _SEGMENTS.c.first_start,
                    frames.c.start_time <= _SEGMENTS.c.last_start,
                )
                for frames in _FRAMES
            )
        )
    ).all()
    _delete(connection, gone)
    return len(gone)


def _without_frames_on_shards(connection: sa.Connection) -> list[int]:
    """The same, by the hours that have frames: the segments are not on the shards."""
    selected = sa.select(_SEGMENTS.c.id, _SEGMENTS.c.first_start, _SEGMENTS.c.last_start)
    segments = connection.execute(selected).all()
    if not segments:
        return []
    hours = sorted(
        hour
        for frames in _FRAMES
        for hour in connection.scalars(sa.select(frames.c.start_time).distinct())
    )
    places = ((one, bisect_left(hours, one.first_start)) for one in segments)
    return [one.id for one, place in places if place == len(hours) or hours[place] > one.last_start]


def forget_expired(connection: sa.Connection, lower: datetime, upper: datetime) -> None:
    """Remove the hours of traces in [lower, upper) that have no frames any more from the segments.

    Those that still have some are noted, because their frames may have been away for a while.
    """
    stored = sa.union(
        *(
            sa.select(frames.c.trace_id, frames.c.start_time).where(
                frames.c.start_time >= lower, frames.c.start_time < upper
            )
            for frames in _FRAMES
        )
    )
    left = {
        HourKey(row.trace_id, row.start_time.astimezone(UTC)) for row in connection.execute(stored)
    }
    note_changed(connection, left)
    overlapping = sa.select(_SEGMENTS.c.id, _SEGMENTS.c.hours).where(
        _SEGMENTS.c.last_start >= lower, _SEGMENTS.c.first_start < upper
    )
    for row in connection.execute(overlapping).all():
        expired = {key for key in keys_of(row.hours) if lower <= key.start_time < upper} - left
        if expired:
            merge_segments(connection, [row.id], without=expired)


def _delete(connection: sa.Connection, ids: Collection[int]) -> None:
    if ids:
        connection.execute(sa.delete(_WORDS).where(_WORDS.c.segment_id.in_(ids)))
        connection.execute(sa.delete(_SEGMENTS).where(_SEGMENTS.c.id.in_(ids)))
