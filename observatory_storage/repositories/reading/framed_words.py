"""Looks up words of payload frames: the hours of traces whose frames may have them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from observatory_storage.models import LogFrame, PayloadSegment, PayloadUnindexed, PayloadWords
from observatory_storage.payloads.frame_keys import hour_of
from observatory_storage.payloads.word_blocks import KEY_BYTES, HourKey, keys_of, read_block
from observatory_storage.repositories.reading.filter_fields import within
from observatory_storage.repositories.reading.text_search import Run

__all__ = ["FramedWords"]

# A beginning of more blocks of a segment rules out too little.
_MOST_BLOCKS: Final = 64
# Segments may be merged between two statements.
_ATTEMPTS: Final = 4
# Of a segment from which more than this part is wanted, all keys are read.
_PART: Final = 16
_LAST: Final = "\U0010ffff"

_FIRST_WORD: Final = PayloadWords.first_word
_OF_SEGMENT: Final = PayloadWords.segment_id == PayloadSegment.id
_RUNS: Final = (
    sa.func.unnest(
        sa.bindparam("numbers", type_=sa.ARRAY(sa.Integer)),
        sa.bindparam("words", type_=sa.ARRAY(_FIRST_WORD.type)),
        sa.bindparam("lasts", type_=sa.ARRAY(_FIRST_WORD.type)),
    )
    .table_valued("number", "word", "last")
    .render_derived(name="run")
)


def _blocks() -> sa.Select[Any]:
    """The blocks that may have the words of each run, in each segment."""
    word, last = (sa.collate(_RUNS.c[name], "C") for name in ("word", "last"))
    of_word = (
        sa.select(PayloadWords.data)
        .where(_OF_SEGMENT, word >= _FIRST_WORD)
        .order_by(_FIRST_WORD.desc())
        .limit(1)
    )
    following = (
        sa.select(PayloadWords.data)
        .where(_OF_SEGMENT, word < _FIRST_WORD, last >= _FIRST_WORD)
        .limit(_MOST_BLOCKS)
    )
    both = sa.union_all(
        sa.select(of_word.correlate(PayloadSegment, _RUNS).subquery()),
        sa.select(following.correlate(PayloadSegment, _RUNS).subquery()),
    ).lateral("block")
    return (
        sa.select(PayloadSegment.id, PayloadSegment.key_count, _RUNS.c.number, both.c.data)
        .select_from(PayloadSegment)
        .join(_RUNS, sa.true())
        .outerjoin(both, sa.true())
    )


_BLOCKS: Final = _blocks()
_PLACES: Final = (
    sa.func.unnest(
        sa.bindparam("segments", type_=sa.ARRAY(sa.BigInteger)),
        sa.bindparam("ordinals", type_=sa.ARRAY(sa.BigInteger)),
    )
    .table_valued("segment", "ordinal")
    .render_derived(name="place")
)
_HOURS_AT: Final = sa.select(
    sa.func.substring(
        PayloadSegment.hours, sa.cast(_PLACES.c.ordinal * KEY_BYTES + 1, sa.Integer), KEY_BYTES
    )
).join_from(_PLACES, PayloadSegment, PayloadSegment.id == _PLACES.c.segment)
_WHOLE: Final = sa.select(PayloadSegment.hours).where(
    PayloadSegment.id == sa.bindparam("segment", type_=sa.BigInteger)
)

# Places in a segment; None for all of them.
_Places = set[int] | None


class _Merged(Exception):
    """A segment has been replaced meanwhile by a larger one."""


class FramedWords:
    """The index of words of payload frames, in a time range.

    Args:
        start, end: the range of the starts of spans, or of the times of log records; None where it
            has no bound.
        logged: the range of the log records that matter, if it is another one.
    """

    def __init__(
        self,
        connection: sa.Connection | Session,
        start: datetime | None,
        end: datetime | None,
        logged: tuple[datetime | None, datetime | None] | None = None,
    ) -> None:
        self._connection = connection
        first = None if start is None else hour_of(start)
        self._first, self._end = first, end
        self._of_segments = [
            *within(PayloadSegment.last_start, first, None),
            *within(PayloadSegment.first_start, None, end),
        ]
        self._logged = (start, end) if logged is None else logged

    @property
    def is_any(self) -> bool:
        """Whether there may be frames in the range."""
        noted, has_segments = self._known
        return bool(noted) or has_segments

    @cached_property
    def has_log_frames(self) -> bool:
        """Whether there are frames of log records in their range."""
        # Asked only where there may be: planning for all partitions of frames would take long.
        frame = sa.exists().where(*self._within(LogFrame.start_time)).select_from(LogFrame)
        return self.is_any and bool(self._connection.scalar(sa.select(frame)))

    def all(self) -> set[HourKey]:
        """All hours of traces that may have frames."""
        found = set(self._known[0])
        for hours in self._connection.scalars(
            sa.select(PayloadSegment.hours).where(*self._of_segments)
        ):
            found.update(keys_of(hours))
        return self._in_range(found)

    def candidates(self, alternatives: Sequence[Sequence[Run]]) -> set[HourKey] | None:
        """The hours of traces that may have all words of one of the alternatives.

        Returns:
            None if the words rule out too little.
        """
        if not all(alternatives):
            return None
        # First, because what is indexed meanwhile is then found in both.
        noted, has_segments = self._known
        if not has_segments:
            return self._in_range(noted)
        for _ in range(_ATTEMPTS):
            try:
                indexed = self._indexed(alternatives)
            except _Merged:
                continue
            return None if indexed is None else self._in_range(noted | indexed)
        return None

    @cached_property
    def _known(self) -> tuple[set[HourKey], bool]:
        """The hours of traces that are noted, and whether there are segments."""
        noted = sa.select(PayloadUnindexed.trace_id, PayloadUnindexed.start_time)
        first, end = self._logged
        since = None if first is None else hour_of(first)
        of_segments = (
            *within(PayloadSegment.last_start, since, None),
            *within(PayloadSegment.first_start, None, end),
        )
        segment = sa.select(sa.null(), sa.null()).where(
            sa.exists().where(*of_segments).select_from(PayloadSegment)
        )
        both: sa.CompoundSelect[Any] = sa.union_all(
            noted.where(*self._within(PayloadUnindexed.start_time)).distinct(), segment
        )
        rows = self._connection.execute(both).all()
        keys = {HourKey(row[0], row[1].astimezone(UTC)) for row in rows if row[0] is not None}
        return keys, any(row[0] is None for row in rows)

    def _within(self, start_time: Any) -> list[sa.ColumnElement[bool]]:
        """Whether frames of an hour may matter."""
        first, end = self._logged
        return within(start_time, None if first is None else hour_of(first), end)

    def _indexed(self, alternatives: Sequence[Sequence[Run]]) -> set[HourKey] | None:
        runs = list(dict.fromkeys(run for each in alternatives for run in each))
        places: dict[int, dict[Run, _Places]] = {}
        counts: dict[int, int] = {}
        for segment, key_count, run, data in self._blocks_of(runs):
            counts[segment] = key_count
            of_run = places.setdefault(segment, {one: set() for one in runs})
            if data is not None:
                of_run[run] = _both(of_run[run], _places(data, run))
        wanted: dict[int, set[int]] = {}
        for segment, of_run in places.items():
            found = _matching(alternatives, of_run)
            if found is None:
                return None
            wanted[segment] = found
        return self._hours(wanted, counts)

    def _blocks_of(self, runs: Sequence[Run]) -> Iterator[tuple[int, int, Run, bytes | None]]:
        values = {
            "numbers": list(range(len(runs))),
            "words": [run.text for run in runs],
            "lasts": [_last_of(run) for run in runs],
        }
        for row in self._connection.execute(_BLOCKS.where(*self._of_segments), values):
            yield row.id, row.key_count, runs[row.number], row.data

    def _hours(self, wanted: Mapping[int, set[int]], counts: Mapping[int, int]) -> set[HourKey]:
        found: set[HourKey] = set()
        places: list[tuple[int, int]] = []
        for segment, ordinals in wanted.items():
            if len(ordinals) <= counts[segment] // _PART:
                places += [(segment, ordinal) for ordinal in ordinals]
                continue
            hours = self._connection.scalar(_WHOLE, {"segment": segment})
            if hours is None:
                raise _Merged
            keys = keys_of(bytes(hours))
            found.update(keys[ordinal] for ordinal in ordinals)
        if places:
            segments, each = zip(*places, strict=True)
            values = {"segments": list(segments), "ordinals": list(each)}
            data = self._connection.scalars(_HOURS_AT, values).all()
            if len(data) < len(places):
                raise _Merged
            found.update(keys_of(b"".join(map(bytes, data))))
        return found

    def _in_range(self, keys: Iterable[HourKey]) -> set[HourKey]:
        first, end = self._first, self._end
        return {
            key
            for key in keys
            if (first is None or key.start_time >= first) and (end is None or key.start_time < end)
        }


def _last_of(run: Run) -> str:
    return run.text + _LAST if run.is_beginning else run.text


def _places(data: bytes, run: Run) -> _Places:
    found: set[int] = set()
    for _, ordinals in read_block(data, run.text, _last_of(run)):
        if not ordinals:
            return None
        found.update(ordinals)
    return found


def _both(one: _Places, other: _Places) -> _Places:
    return None if one is None or other is None else one | other


def _matching(alternatives: Sequence[Sequence[Run]], of_run: dict[Run, _Places]) -> _Places:
    """The places with all runs of an alternative."""
    found: set[int] = set()
    for runs in alternatives:
        known = [places for run in runs if (places := of_run[run]) is not None]
        if not known:
            return None
        found |= set.intersection(*known)
    return found
